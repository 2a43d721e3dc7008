import com.sun.jna.Callback;
import com.sun.jna.Function;
import com.sun.jna.Memory;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;
import java.lang.ref.Cleaner;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * oauth-mail for Java: lift this file into your helpdesk. Java 11 and newer with JNA 5 (Apache-2.0).
 *
 * <pre>
 *   try (var plugin = OauthMail.load("/usr/lib/liboauth_mail.so").plugin("{\"store\":\"sqlite:mail.db\",\"key\":{\"file\":\"mail.key\"}}");
 *        var account = plugin.open("{\"incoming\":{...}}");
 *        var batch = account.fetchBatch("{\"max_messages\":100}")) {
 *     for (var message : batch) { ... }     // one transaction: your request, and message.key() as a unique column
 *     account.settleBatch("{\"results\":{...}}");
 *   }
 * </pre>
 *
 * Requests and answers are the JSON documents of plugin/core/src/hooks/mod.rs, as text: bring your own JSON library. Errors
 * are OauthMail.Failure with a kind. Handles are released by close(), or at last by a Cleaner. Any thread may call.
 */
public final class OauthMail {
  /** What a hook answers when it cannot go on; {@link #json} has message, remedy, who, faults, ... */
  public static final class Failure extends RuntimeException {
    public enum Kind {
      OTHER, SETTINGS, CONSENT_REQUIRED, ADMIN_REQUIRED, REFUSED, THROTTLED, TRANSIENT, TOO_LARGE, SERVER_MISBEHAVED,
      UNSUPPORTED, MISUSE, CLOSED, INTERNAL
    }

    public final Kind kind;
    public final String json;

    Failure(int status, String json) {
      super(json);
      this.kind = status < Kind.values().length ? Kind.values()[status] : Kind.OTHER;
      this.json = json;
    }
  }

  /** Called from any thread, until the plugin is closed. Level: 1 error, 2 warning, 3 info, 4 debug. */
  public interface Log {
    void line(int level, String mailbox, String line);
  }

  private interface NativeLog extends Callback {
    void invoke(Pointer userdata, int level, Pointer mailbox, long mailboxLength, Pointer line, long lineLength);
  }

  private static final String[] FUNCTIONS = {
    "describe", "plugin_new", "open", "authenticate", "fetch_batch", "settle_batch", "send_message", "cancel", "close",
    "text", "count", "part", "release"
  };
  private static final Cleaner CLEANER = Cleaner.create();
  private final Pointer table;

  private OauthMail(Pointer table) {
    this.table = table;
  }

  /** The library is never unloaded. */
  public static OauthMail load(String path) {
    return new OauthMail(NativeLibrary.getInstance(path).getFunction("oauth_mail_v1_api").invokePointer(new Object[] {null}));
  }

  /** Name, version, protocols, grants, schemas, extensions. */
  public String describe() {
    return read(call("describe"));
  }

  public Plugin plugin(String config) {
    return plugin(config, null);
  }

  public Plugin plugin(String config, Log log) {
    NativeLog nativeLog = log == null ? null
        : (u, level, mailbox, mailboxLength, line, lineLength) ->
            log.line(level, text(mailbox, mailboxLength), text(line, lineLength));
    Memory callbacks = new Memory(48);
    callbacks.clear();
    callbacks.setLong(0, 48);
    if (nativeLog != null) {
      callbacks.setPointer(16, com.sun.jna.CallbackReference.getFunctionPointer(nativeLog));
    }
    byte[] bytes = utf8(config);
    return new Plugin(call("plugin_new", bytes, (long) bytes.length, callbacks), nativeLog);
  }

  private int invoke(String name, Object... arguments) {
    int at = 0;
    while (!FUNCTIONS[at].equals(name)) at++;
    return Function.getFunction(table.getPointer(16 + 8L * at)).invokeInt(arguments);
  }

  /** The handle that a function wrote. */
  private long call(String name, Object... arguments) {
    LongByReference out = new LongByReference(), error = new LongByReference();
    check(invoke(name, append(arguments, out, error)), error);
    return out.getValue();
  }

  private void check(int status, LongByReference error) {
    if (status != 0) throw new Failure(status, error.getValue() == 0 ? "status " + status : read(error.getValue()));
  }

  /** A text or an error, once. */
  private String read(long handle) {
    try {
      return StandardCharsets.UTF_8.decode(view("text", handle)).toString();
    } finally {
      invoke("release", handle);
    }
  }

  /** The bytes in place: valid until the object is released. */
  private ByteBuffer view(String name, Object... arguments) {
    LongByReference data = new LongByReference(), length = new LongByReference(), error = new LongByReference();
    check(invoke(name, append(arguments, data, length, error)), error);
    if (length.getValue() == 0) return ByteBuffer.allocate(0);
    return new Pointer(data.getValue()).getByteBuffer(0, length.getValue()).asReadOnlyBuffer();
  }

  private static Object[] append(Object[] arguments, Object... more) {
    Object[] all = java.util.Arrays.copyOf(arguments, arguments.length + more.length);
    System.arraycopy(more, 0, all, arguments.length, more.length);
    return all;
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static String text(Pointer data, long length) {
    return length == 0 ? "" : new String(data.getByteArray(0, (int) length), StandardCharsets.UTF_8);
  }

  /** A handle that is released once. */
  private abstract class Owned implements AutoCloseable {
    final long handle;
    private final Cleaner.Cleanable cleanable;

    Owned(long handle, Object keep) {
      this.handle = handle;
      OauthMail library = OauthMail.this;
      // Holds what must outlive the handle, and not this object.
      this.cleanable = CLEANER.register(this, () -> {
        library.invoke("release", handle);
        java.lang.ref.Reference.reachabilityFence(keep);
      });
    }

    @Override
    public void close() {
      cleanable.clean();
    }
  }

  public final class Plugin extends Owned {
    Plugin(long handle, Object callbacks) {
      super(handle, callbacks);
    }

    /** One mailbox in one direction: {"incoming":{...}} or {"outgoing":{...}}. */
    public Account open(String settings) {
      byte[] bytes = utf8(settings);
      return new Account(call("open", handle, bytes, (long) bytes.length), this);
    }
  }

  public final class Account extends Owned {
    Account(long handle, Plugin plugin) {
      super(handle, plugin);
    }

    public String authenticate(String request) {
      return ask("authenticate", request);
    }

    public Batch fetchBatch(String bounds) {
      byte[] bytes = utf8(bounds);
      return new Batch(call("fetch_batch", handle, bytes, (long) bytes.length), this);
    }

    public String settleBatch(String results) {
      return ask("settle_batch", results);
    }

    public String sendMessage(String request, byte[] raw) {
      byte[] bytes = utf8(request);
      return read(call("send_message", handle, bytes, (long) bytes.length, raw.length == 0 ? null : raw, (long) raw.length));
    }

    /** From another thread: what runs comes back at once. */
    public void cancel() {
      LongByReference error = new LongByReference();
      check(invoke("cancel", handle, error), error);
    }

    private String ask(String name, String request) {
      byte[] bytes = utf8(request);
      return read(call(name, handle, bytes, (long) bytes.length));
    }
  }

  /** Messages in mailbox order. Their bytes live until close(). */
  public final class Batch extends Owned implements Iterable<Message> {
    Batch(long handle, Account account) {
      super(handle, account);
    }

    public String header() {
      return StandardCharsets.UTF_8.decode(view("text", handle)).toString();
    }

    public int size() {
      LongByReference count = new LongByReference(), error = new LongByReference();
      check(invoke("count", handle, count, error), error);
      return (int) count.getValue();
    }

    @Override
    public Iterator<Message> iterator() {
      int size = size();
      return new Iterator<>() {
        private int next;

        @Override
        public boolean hasNext() {
          return next < size;
        }

        @Override
        public Message next() {
          if (!hasNext()) throw new NoSuchElementException();
          return new Message(Batch.this, next++);
        }
      };
    }
  }

  public final class Message {
    private final Batch batch;
    private final int index;

    Message(Batch batch, int index) {
      this.batch = batch;
      this.index = index;
    }

    public String key() {
      return StandardCharsets.UTF_8.decode(part(0, 0)).toString();
    }

    /** The library's bytes in place, read-only: nothing is copied. */
    public ByteBuffer raw() {
      return part(1, 0);
    }

    /** Facts and disposition as JSON. */
    public String facts() {
      return StandardCharsets.UTF_8.decode(part(2, 0)).toString();
    }

    public String text() {
      return StandardCharsets.UTF_8.decode(part(3, 0)).toString();
    }

    public String html() {
      return StandardCharsets.UTF_8.decode(part(4, 0)).toString();
    }

    /** Decoded; partIndex as "attachments" of the facts lists it. */
    public ByteBuffer attachment(int partIndex) {
      return part(5, partIndex);
    }

    private ByteBuffer part(int part, int attachment) {
      return view("part", batch.handle, (long) index, part, attachment);
    }
  }
}
