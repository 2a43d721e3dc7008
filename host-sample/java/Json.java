import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Just enough JSON for this sample, so that it needs no other package. A helpdesk has Jackson or Gson. */
final class Json {
  private final String text;
  private int at;

  private Json(String text) {
    this.text = text;
  }

  static Object parse(String text) {
    Json json = new Json(text);
    Object value = json.value();
    if (json.peek() != 0) throw json.wrong();
    return value;
  }

  @SuppressWarnings("unchecked")
  static Map<String, Object> object(Object value) {
    return (Map<String, Object>) value;
  }

  static String print(Object value) {
    if (value instanceof Map<?, ?> map) {
      List<String> members = new ArrayList<>();
      map.forEach((name, member) -> members.add(print(name) + ":" + print(member)));
      return "{" + String.join(",", members) + "}";
    }
    if (value instanceof List<?> list) return "[" + String.join(",", list.stream().map(Json::print).toList()) + "]";
    if (!(value instanceof String text)) return String.valueOf(value);
    StringBuilder out = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\') out.append('\\').append(c);
      else if (c < ' ') out.append(String.format("\\u%04x", (int) c));
      else out.append(c);
    }
    return out.append('"').toString();
  }

  private Object value() {
    switch (peek()) {
      case '{': {
        Map<String, Object> map = new LinkedHashMap<>();
        for (at++; peek() != '}'; skip(',')) {
          String name = string();
          if (peek() != ':') throw wrong();
          at++;
          map.put(name, value());
        }
        at++;
        return map;
      }
      case '[': {
        List<Object> list = new ArrayList<>();
        for (at++; peek() != ']'; skip(',')) list.add(value());
        at++;
        return list;
      }
      case '"':
        return string();
      default: {
        int from = at;
        while (at < text.length() && "+-.eE0123456789truefalsn".indexOf(text.charAt(at)) >= 0) at++;
        String word = text.substring(from, at);
        if (word.equals("null")) return null;
        if (word.equals("true") || word.equals("false")) return word.equals("true");
        if (word.isEmpty()) throw wrong();
        return word.matches("-?[0-9]+") ? (Object) Long.valueOf(word) : Double.valueOf(word);
      }
    }
  }

  private String string() {
    if (peek() != '"') throw wrong();
    StringBuilder out = new StringBuilder();
    for (at++; text.charAt(at) != '"'; at++) {
      char c = text.charAt(at);
      if (c != '\\') {
        out.append(c);
        continue;
      }
      c = text.charAt(++at);
      int known = "\"\\/bfnrt".indexOf(c);
      if (known >= 0) out.append("\"\\/\b\f\n\r\t".charAt(known));
      else {
        out.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
        at += 4;
      }
    }
    at++;
    return out.toString();
  }

  private char peek() {
    while (at < text.length() && Character.isWhitespace(text.charAt(at))) at++;
    return at < text.length() ? text.charAt(at) : 0;
  }

  private void skip(char c) {
    if (peek() == c) at++;
  }

  private RuntimeException wrong() {
    return new IllegalArgumentException("not JSON at " + at);
  }
}
