/* Everything that cannot be meant, handed to the C interface: each is a named refusal and none is a crash.
 *
 *   matrix LIBRARY STORE CYCLES   prints one line per case that went wrong, and at last: matrix: N/N
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oauth_mail.h"

_Static_assert(sizeof(OauthMailCallbacks) == 48, "frozen");
_Static_assert(offsetof(OauthMailCallbacks, release) == 40, "frozen");
_Static_assert(offsetof(OauthMailApi, describe) == 16, "frozen");
_Static_assert(offsetof(OauthMailApi, release) == 112, "frozen");

static const OauthMailApi *api;
static int cases, good;

static void said(OauthMailHandle error, char *out, size_t most) {
  const uint8_t *data;
  size_t len;
  out[0] = 0;
  if (error != 0 && api->text(error, &data, &len, NULL) == OAUTH_MAIL_OK) {
    if (len >= most) len = most - 1;
    memcpy(out, data, len);
    out[len] = 0;
    api->release(error);
  }
}

/* The status that is expected, and words that the error says. The call comes first: it writes the error. */
#define expect(name, call, expected, error, words) \
  do {                                             \
    uint32_t status_ = (uint32_t)(call);           \
    check(name, status_, expected, error, words);  \
  } while (0)

static void check(const char *name, uint32_t status, uint32_t expected, OauthMailHandle error, const char *words) {
  char text[4096];
  said(error, text, sizeof text);
  cases++;
  if (status == expected && (words == NULL || strstr(text, words) != NULL)) {
    good++;
  } else {
    printf("WRONG %s: status %u instead of %u, %s\n", name, status, expected, text);
  }
}

static const uint8_t *bytes(const char *text) { return (const uint8_t *)text; }

static int logs, healths, releases, keys;

static void on_log(void *u, uint32_t level, const uint8_t *m, size_t ml, const uint8_t *l, size_t ll) {
  (void)u, (void)level, (void)m, (void)ml, (void)l, (void)ll;
  logs++;
}

static uint32_t inside_status;

static void on_health(void *u, const uint8_t *m, size_t ml, const uint8_t *h, size_t hl) {
  (void)m, (void)ml, (void)h, (void)hl;
  OauthMailHandle text, account = *(OauthMailHandle *)u;
  inside_status = api->authenticate(account, bytes("{}"), 2, &text, NULL);
  healths++;
}

static uint32_t on_key(void *u, uint8_t *key, size_t len) {
  (void)u;
  for (size_t at = 0; at < len; at++) key[at] = (uint8_t)at;
  keys++;
  return len == 32 ? 0 : 7;
}

static uint32_t on_key_fails(void *u, uint8_t *key, size_t len) {
  (void)u, (void)key, (void)len;
  return 5;
}

static void on_release(void *u) {
  (void)u;
  releases++;
}

static const char SETTINGS[] =
    "{\"incoming\":{\"connection_protocol\":\"POP/IMAP/POPS/IMAPS\",\"authentication_type\":\"OAuth\",\"server_name\":\"127.0.0.1\","
    "\"username\":\"desk@example.org\",\"email_addresses\":[\"desk@example.org\"],\"protocol\":\"IMAPS\",\"port\":993,"
    "\"client_id\":\"client\",\"authorize_url\":\"https://127.0.0.1:9/authorize\",\"access_token_url\":\"https://127.0.0.1:9/token\","
    "\"scope\":\"mail\",\"redirect_url\":\"http://127.0.0.1:8400/callback\",\"fetch_interval_minutes\":5}}";

static OauthMailHandle shared_account;

static void *many(void *unused) {
  (void)unused;
  for (int n = 0; n < 50; n++) {
    OauthMailHandle text = 0, error = 0;
    const char *status = "{\"action\":\"status\"}";
    uint32_t got = api->authenticate(shared_account, bytes(status), strlen(status), &text, &error);
    if (got != OAUTH_MAIL_OK) {
      if (error != 0) api->release(error);
      return (void *)1;
    }
    api->release(text);
  }
  return NULL;
}

/* What the process does on a signal is the host's business. */
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGPIPE, SIGTERM, SIGCHLD, SIGABRT};
#define SIGNAL_COUNT (sizeof SIGNALS / sizeof *SIGNALS)

static void note_signals(struct sigaction *actions) {
  for (size_t at = 0; at < SIGNAL_COUNT; at++) sigaction(SIGNALS[at], NULL, &actions[at]);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int cycles = atoi(argv[3]);
  struct sigaction before_load[SIGNAL_COUNT], at_end[SIGNAL_COUNT];
  note_signals(before_load);
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    printf("%s\n", dlerror());
    return 1;
  }
  OauthMailV1Api entry;
  *(void **)&entry = dlsym(library, "oauth_mail_v1_api");
  if (entry == NULL) return 1;
  size_t size = 0;
  api = entry(&size);
  expect("table", api != NULL && size == api->size && size >= sizeof(OauthMailApi), 1, 0, NULL);
  expect("size NULL", entry(NULL) == api, 1, 0, NULL);
  expect("version", api->version, OAUTH_MAIL_ABI_VERSION, 0, NULL);
  expect("no later major", dlsym(library, "oauth_mail_v2_api") == NULL, 1, 0, NULL);

  char config[4096], own_key[4096];
  snprintf(config, sizeof config, "{\"store\":\"sqlite:%s\",\"key\":{\"value\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}}", argv[2]);
  snprintf(own_key, sizeof own_key, "{\"store\":\"sqlite:%s\",\"key\":{}}", argv[2]);
  OauthMailHandle text = 0, plugin = 0, account = 0, batch = 0, error = 0;
  const uint8_t *data = NULL;
  size_t len = 0;

  /* describe */
  expect("describe", api->describe(&text, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("text", api->text(text, &data, &len, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("it is JSON", len > 2 && data[0] == '{', 1, 0, NULL);
  expect("describe into NULL", api->describe(NULL, &error), OAUTH_MAIL_MISUSE, error, "NULL");
  expect("describe, nobody wants words", api->describe(NULL, NULL), OAUTH_MAIL_MISUSE, 0, NULL);
  expect("text is no batch", api->count(text, &len, &error), OAUTH_MAIL_MISUSE, error, "names a text");
  expect("text is no account", api->close(text, &error), OAUTH_MAIL_MISUSE, error, "an account is needed");
  expect("text into NULL", api->text(text, NULL, &len, &error), OAUTH_MAIL_MISUSE, error, "`data` is NULL");
  expect("text, length into NULL", api->text(text, &data, NULL, &error), OAUTH_MAIL_MISUSE, error, "`len` is NULL");
  expect("release a text", api->release(text), OAUTH_MAIL_OK, 0, NULL);
  expect("release it twice", api->release(text), OAUTH_MAIL_MISUSE, 0, NULL);
  expect("text after release", api->text(text, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "was released");
  expect("release nothing", api->release(0), OAUTH_MAIL_MISUSE, 0, NULL);
  expect("a made-up handle", api->text(0x1234567, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "never given out");
  expect("all bits", api->text(UINT64_MAX, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "never given out");
  expect("a pointer as handle", api->text((uint64_t)(uintptr_t)&text, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "never");
  uint8_t odd[32];
  expect("misaligned", api->describe((OauthMailHandle *)(void *)(odd + 1), &error), OAUTH_MAIL_MISUSE, error, "not aligned");

  /* plugin_new */
  expect("config NULL", api->plugin_new(NULL, 5, NULL, &plugin, &error), OAUTH_MAIL_MISUSE, error, "NULL");
  expect("config empty", api->plugin_new(NULL, 0, NULL, &plugin, &error), OAUTH_MAIL_MISUSE, error, "missing field");
  expect("config garbage", api->plugin_new(bytes("{{{"), 3, NULL, &plugin, &error), OAUTH_MAIL_MISUSE, error, "understood");
  expect("config no UTF-8", api->plugin_new(bytes("\xff\xfe{}"), 4, NULL, &plugin, &error), OAUTH_MAIL_MISUSE, error, "UTF-8");
  expect("config endless", api->plugin_new(bytes(config), SIZE_MAX, NULL, &plugin, &error), OAUTH_MAIL_TOO_LARGE, error, "no memory");
  expect("plugin into NULL", api->plugin_new(bytes(config), strlen(config), NULL, NULL, &error), OAUTH_MAIL_MISUSE, error, "`plugin` is NULL");
  const char *nowhere = "{\"store\":\"sqlite:/no/such/folder/x.db\",\"key\":{\"value\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}}";
  expect("no such store", api->plugin_new(bytes(nowhere), strlen(nowhere), NULL, &plugin, &error) != OAUTH_MAIL_OK, 1, error, NULL);
  OauthMailCallbacks callbacks = {0, &account, on_log, on_health, NULL, on_release};
  expect("callbacks without size", api->plugin_new(bytes(config), strlen(config), &callbacks, &plugin, &error), OAUTH_MAIL_MISUSE, error, "callbacks.size");
  callbacks.size = 8;
  expect("callbacks too short", api->plugin_new(bytes(config), strlen(config), &callbacks, &plugin, &error), OAUTH_MAIL_MISUSE, error, "callbacks.size");
  callbacks.size = 1 << 20;
  expect("callbacks of a wrong size", api->plugin_new(bytes(config), strlen(config), &callbacks, &plugin, &error), OAUTH_MAIL_MISUSE, error, "callbacks.size");
  callbacks.size = sizeof callbacks;
  callbacks.secret_key = on_key_fails;
  expect("the key callback fails", api->plugin_new(bytes(own_key), strlen(own_key), &callbacks, &plugin, &error), OAUTH_MAIL_SETTINGS, error, "answered 5");
  expect("and releases", releases, 1, 0, NULL);
  callbacks.secret_key = on_key;
  struct {
    OauthMailCallbacks known;
    void *later[4];
  } newer = {callbacks, {NULL, NULL, NULL, NULL}};
  newer.known.size = sizeof newer;
  expect("callbacks of a later host", api->plugin_new(bytes(own_key), strlen(own_key), &newer.known, &plugin, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("the key was asked for", keys, 1, 0, NULL);

  /* open */
  expect("settings garbage", api->open(plugin, bytes("no"), 2, &account, &error), OAUTH_MAIL_SETTINGS, error, "JSON");
  const char *faulty = "{\"incoming\":{}}";
  expect("settings with faults", api->open(plugin, bytes(faulty), strlen(faulty), &account, &error), OAUTH_MAIL_SETTINGS, error, "/incoming/");
  expect("open a text", api->open(0, bytes(SETTINGS), strlen(SETTINGS), &account, &error), OAUTH_MAIL_MISUSE, error, "is 0");
  expect("account into NULL", api->open(plugin, bytes(SETTINGS), strlen(SETTINGS), NULL, &error), OAUTH_MAIL_MISUSE, error, "`account`");
  expect("open", api->open(plugin, bytes(SETTINGS), strlen(SETTINGS), &account, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("account is no plugin", api->open(account, bytes(SETTINGS), strlen(SETTINGS), &batch, &error), OAUTH_MAIL_MISUSE, error, "names an account");

  /* hooks */
  const char *status = "{\"action\":\"status\"}";
  expect("status", api->authenticate(account, bytes(status), strlen(status), &text, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("health was told", healths, 1, 0, NULL);
  expect("a hook inside a callback", inside_status, OAUTH_MAIL_MISUSE, 0, NULL);
  api->release(text);
  expect("action unknown", api->authenticate(account, bytes("{\"action\":\"x\"}"), 14, &text, &error), OAUTH_MAIL_MISUSE, error, "unknown variant");
  expect("request NULL", api->authenticate(account, NULL, 9, &text, &error), OAUTH_MAIL_MISUSE, error, "`request` is NULL");
  expect("nobody consented", api->fetch_batch(account, NULL, 0, &batch, &error), OAUTH_MAIL_CONSENT_REQUIRED, error, "consent");
  expect("batch into NULL", api->fetch_batch(account, NULL, 0, NULL, &error), OAUTH_MAIL_MISUSE, error, "`batch`");
  expect("fetch with a plugin", api->fetch_batch(plugin, NULL, 0, &batch, &error), OAUTH_MAIL_MISUSE, error, "names a plugin");
  expect("bounds", api->fetch_batch(account, bytes("{\"max_messages\":0}"), 18, &batch, &error), OAUTH_MAIL_MISUSE, error, "max_messages");
  expect("settle nothing", api->settle_batch(account, bytes("{\"results\":{}}"), 14, &text, &error), OAUTH_MAIL_OK, 0, NULL);
  api->release(text);
  expect("settle a made-up key", api->settle_batch(account, bytes("{\"results\":{\"a\":\"imported\"}}"), 28, &text, &error), OAUTH_MAIL_MISUSE, error, "not a message key");
  expect("send with incoming", api->send_message(account, bytes("{\"to\":[\"a@b.test\"]}"), 19, NULL, 0, &text, &error), OAUTH_MAIL_MISUSE, error, "outgoing");
  expect("raw NULL", api->send_message(account, bytes("{}"), 2, NULL, 7, &text, &error), OAUTH_MAIL_MISUSE, error, "`raw` is NULL");
  expect("part of an account", api->part(account, 0, 0, 0, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "a batch is needed");
  expect("quarantine is a batch", api->fetch_batch(account, bytes("{\"quarantine\":\"list\"}"), 21, &batch, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("its header", api->text(batch, &data, &len, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("its messages", api->count(batch, &len, &error) == OAUTH_MAIL_OK && len == 0, 1, 0, NULL);
  expect("message beyond the end", api->part(batch, 0, OAUTH_MAIL_PART_RAW, 0, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "no message 0");
  expect("release a batch", api->release(batch), OAUTH_MAIL_OK, 0, NULL);
  expect("part after release", api->part(batch, 0, 0, 0, &data, &len, &error), OAUTH_MAIL_MISUSE, error, "was released");
  expect("cancel an idle account", api->cancel(account, &error), OAUTH_MAIL_OK, 0, NULL);

  /* 64 threads at once, each with the same account */
  shared_account = account;
  pthread_t threads[64];
  int wrong = 0;
  for (int n = 0; n < 64; n++) pthread_create(&threads[n], NULL, many, NULL);
  for (int n = 0; n < 64; n++) {
    void *answer;
    pthread_join(threads[n], &answer);
    wrong += answer != NULL;
  }
  expect("64 threads", wrong, 0, 0, NULL);

  /* fork: the child is refused its parent's handles, and starts anew */
  fflush(stdout);
  int answer[2];
  if (pipe(answer) != 0) return 1;
  pid_t child = fork();
  if (child == 0) {
    alarm(60);
    OauthMailHandle fresh = 0;
    uint32_t old = api->authenticate(account, bytes(status), strlen(status), &text, &error);
    char words[512];
    said(error, words, sizeof words);
    char wrong = 0;
    if (old != OAUTH_MAIL_MISUSE || strstr(words, "before fork") == NULL) wrong = 1;
    if (api->plugin_new(bytes(config), strlen(config), NULL, &fresh, NULL) != OAUTH_MAIL_OK) wrong = 2;
    if (api->open(fresh, bytes(SETTINGS), strlen(SETTINGS), &account, NULL) != OAUTH_MAIL_OK) wrong = 3;
    if (api->authenticate(account, bytes(status), strlen(status), &text, NULL) != OAUTH_MAIL_OK) wrong = 4;
    if (api->release(fresh) != OAUTH_MAIL_OK) wrong = 5;
    if (write(answer[1], &wrong, 1) != 1) _exit(1);
    /* Not by exit: what the parent's threads held is no leak of the child's. */
    kill(getpid(), SIGKILL);
  }
  close(answer[1]);
  char wrong_in_child = 99;
  expect("fork answers", read(answer[0], &wrong_in_child, 1), 1, 0, NULL);
  expect("fork", wrong_in_child, 0, 0, NULL);
  close(answer[0]);
  waitpid(child, NULL, 0);
  expect("the parent goes on", api->authenticate(account, bytes(status), strlen(status), &text, &error), OAUTH_MAIL_OK, 0, NULL);
  api->release(text);

  /* close, release */
  expect("close", api->close(account, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("close again", api->close(account, &error), OAUTH_MAIL_OK, 0, NULL);
  expect("use after close", api->authenticate(account, bytes(status), strlen(status), &text, &error), OAUTH_MAIL_CLOSED, error, "closed");
  expect("cancel after close", api->cancel(account, &error), OAUTH_MAIL_CLOSED, error, "closed");
  expect("release the plugin", api->release(plugin), OAUTH_MAIL_OK, 0, NULL);
  expect("the host's release", releases, 2, 0, NULL);
  expect("use after the plugin's release", api->authenticate(account, bytes(status), strlen(status), &text, &error), OAUTH_MAIL_CLOSED, error, "released");
  expect("open after release", api->open(plugin, bytes(SETTINGS), strlen(SETTINGS), &account, &error), OAUTH_MAIL_MISUSE, error, "released");
  int before = logs + healths;
  usleep(200000);
  expect("no callback after release", logs + healths, (uint32_t)before, 0, NULL);

  /* memory and descriptors stay flat */
  unsigned long resident[2] = {0, 0};
  int descriptors[2] = {0, 0}, cycled = 0;
  for (int n = 0; n < cycles; n++) {
    if (api->plugin_new(bytes(config), strlen(config), NULL, &plugin, &error) != OAUTH_MAIL_OK) break;
    if (api->open(plugin, bytes(SETTINGS), strlen(SETTINGS), &account, &error) != OAUTH_MAIL_OK) break;
    if (n % 2 == 0) api->release(account);
    api->release(plugin);
    if (n == 99 || n == cycles - 1) {
      FILE *file = fopen("/proc/self/statm", "r");
      unsigned long all = 0;
      if (file != NULL && fscanf(file, "%lu %lu", &all, &resident[n != 99]) == 2) fclose(file);
      descriptors[n != 99] = dup(0);
      close(descriptors[n != 99]);
    }
    cycled++;
  }
  expect("every open and close", cycled, (uint32_t)cycles, error, NULL);
  if (cycles > 100) {
    expect("descriptors stay flat", descriptors[1], (uint32_t)descriptors[0], 0, NULL);
    /* Of 4 KiB: allocators and sanitizers keep a little of their own. */
    expect("memory stays flat", resident[1] < resident[0] + 1024, 1, 0, NULL);
  }
  note_signals(at_end);
  int same = 1;
  for (size_t at = 0; at < SIGNAL_COUNT; at++) same &= before_load[at].sa_handler == at_end[at].sa_handler;
  expect("signal handlers untouched", same, 1, 0, NULL);
  printf("matrix: %d/%d\n", good, cases);
  return good == cases ? 0 : 1;
}
