import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * A host in Java: consent, fetch, settle, send.
 *
 * <pre>java -cp jna.jar:. Host WALK.json      {"library","plugin","incoming","outgoing","to"}</pre>
 *
 * Says one line per step and reads the redirect of the consent from standard input.
 */
public final class Host {
  public static void main(String[] arguments) throws Exception {
    Map<String, Object> walk = Json.object(Json.parse(Files.readString(Path.of(arguments[0]))));
    var input = new BufferedReader(new InputStreamReader(System.in));
    try (var plugin = OauthMail.load((String) walk.get("library")).plugin(Json.print(walk.get("plugin")))) {
      try {
        plugin.open("{\"incoming\":{}}");
      } catch (OauthMail.Failure failure) {
        var faults = (List<?>) Json.object(Json.parse(failure.json)).get("faults");
        System.out.println("refused " + Json.object(faults.get(0)).get("pointer"));
      }
      try (var inbox = plugin.open(Json.print(Map.of("incoming", walk.get("incoming"))));
          var outbox = plugin.open(Json.print(Map.of("outgoing", walk.get("outgoing"))))) {
        try {
          inbox.fetchBatch("{}").close();
        } catch (OauthMail.Failure failure) {
          if (failure.kind != OauthMail.Failure.Kind.CONSENT_REQUIRED) throw failure;
          var started = Json.object(Json.parse(inbox.authenticate("{\"action\":\"start\"}")));
          System.out.println("consent " + started.get("authorize_url"));
          var complete = Map.<String, Object>of("action", "complete", "redirect", input.readLine().trim());
          System.out.println(Json.object(Json.parse(inbox.authenticate(Json.print(complete)))).get("state"));
        }
        var results = new java.util.LinkedHashMap<String, Object>();
        try (var batch = inbox.fetchBatch("{\"max_messages\":100}")) {
          for (var message : batch) {
            var facts = Json.object(Json.parse(message.facts()));
            var words = new ArrayList<Object>(List.of("message", message.raw().remaining(), facts.get("subject")));
            for (Object file : (List<?>) facts.get("attachments")) {
              int part = ((Number) Json.object(file).get("part_index")).intValue();
              words.add(message.attachment(part).remaining());
            }
            System.out.println(String.join(" ", words.stream().map(String::valueOf).toList()));
            results.put(message.key(), "imported");
          }
        }
        var done = Json.object(Json.parse(inbox.settleBatch(Json.print(Map.of("results", results)))));
        System.out.println("settled " + Json.object(done.get("done")).size());
        var mail = Map.<String, Object>of("to", List.of(walk.get("to")), "subject", "From Java", "text", "It works.\n");
        System.out.println(Json.object(Json.parse(outbox.sendMessage(Json.print(mail), new byte[0]))).get("outcome"));
      }
    }
    System.out.println("done");
  }
}
