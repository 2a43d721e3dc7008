/* A host in C: consent, fetch, settle, send. Needs cJSON (MIT; Debian: libcjson-dev).
 *
 *   cc -I plugin/include host-sample/c/host.c -o host -lcjson -ldl
 *   ./host WALK.json      {"library","plugin","incoming","outgoing","to"}
 *
 * Says one line per step and reads the redirect of the consent from standard input. What a helpdesk would lift: `call`,
 * `ask` and `fail`, thirty lines that turn statuses into sentences and texts into JSON.
 */
#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oauth_mail.h"

static const OauthMailApi *api;

/* The JSON of a text or an error, which is released. The caller deletes it. */
static cJSON *take(OauthMailHandle object) {
  const uint8_t *data;
  size_t len;
  cJSON *json = NULL;
  if (api->text(object, &data, &len, NULL) == OAUTH_MAIL_OK) json = cJSON_ParseWithLength((const char *)data, len);
  api->release(object);
  return json;
}

static const char *string(const cJSON *json, const char *name) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, name));
  return text != NULL ? text : "";
}

/* Ends with the sentence for the person who must act. */
static void fail(const char *what, uint32_t status, OauthMailHandle error) {
  cJSON *json = error != 0 ? take(error) : NULL;
  fprintf(stderr, "%s: status %u. %s %s\n", what, status, string(json, "message"), string(json, "remedy"));
  exit(1);
}

typedef uint32_t (*Hook)(OauthMailHandle, const uint8_t *, size_t, OauthMailHandle *, OauthMailHandle *);

/* A hook with a JSON request, which is deleted. What it wrote; `error` is for the caller when it is not NULL. */
static uint32_t call(Hook hook, OauthMailHandle handle, cJSON *request, OauthMailHandle *out, OauthMailHandle *error) {
  char *text = cJSON_PrintUnformatted(request);
  cJSON_Delete(request);
  uint32_t status = hook(handle, (const uint8_t *)text, strlen(text), out, error);
  free(text);
  return status;
}

/* A hook that must succeed and answers a text. */
static cJSON *ask(const char *what, Hook hook, OauthMailHandle handle, cJSON *request) {
  OauthMailHandle text, error = 0;
  uint32_t status = call(hook, handle, request, &text, &error);
  if (status != OAUTH_MAIL_OK) fail(what, status, error);
  return take(text);
}

static cJSON *with(const char *name, cJSON *value) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddItemToObject(object, name, value);
  return object;
}

static OauthMailHandle opened(OauthMailHandle plugin, const cJSON *walk, const char *direction) {
  OauthMailHandle account, error = 0;
  cJSON *settings = with(direction, cJSON_Duplicate(cJSON_GetObjectItem(walk, direction), 1));
  uint32_t status = call(api->open, plugin, settings, &account, &error);
  if (status != OAUTH_MAIL_OK) fail("open", status, error);
  return account;
}

/* send_message takes raw bytes besides; this one composes. */
static uint32_t composed(OauthMailHandle account, const uint8_t *request, size_t len, OauthMailHandle *text, OauthMailHandle *error) {
  return api->send_message(account, request, len, NULL, 0, text, error);
}

static void say(const char *word, const char *more) {
  printf("%s%s%s\n", word, more != NULL ? " " : "", more != NULL ? more : "");
  fflush(stdout);
}

static void consent(OauthMailHandle inbox) {
  cJSON *started = ask("start", api->authenticate, inbox, with("action", cJSON_CreateString("start")));
  say("consent", string(started, "authorize_url"));
  cJSON_Delete(started);
  char redirect[16384];
  if (fgets(redirect, sizeof redirect, stdin) == NULL) exit(1);
  redirect[strcspn(redirect, "\r\n")] = 0;
  cJSON *complete = with("action", cJSON_CreateString("complete"));
  cJSON_AddStringToObject(complete, "redirect", redirect);
  cJSON *answer = ask("complete", api->authenticate, inbox, complete);
  say(string(answer, "state"), NULL);
  cJSON_Delete(answer);
}

/* One part of one message, in place. */
static const uint8_t *part(OauthMailHandle batch, size_t message, uint32_t which, uint32_t attachment, size_t *len) {
  const uint8_t *data;
  OauthMailHandle error = 0;
  uint32_t status = api->part(batch, message, which, attachment, &data, len, &error);
  if (status != OAUTH_MAIL_OK) fail("part", status, error);
  return data;
}

static cJSON *import(OauthMailHandle batch) {
  cJSON *results = cJSON_CreateObject();
  size_t count = 0, len;
  api->count(batch, &count, NULL);
  for (size_t message = 0; message < count; message++) {
    const char *facts_text = (const char *)part(batch, message, OAUTH_MAIL_PART_FACTS, 0, &len);
    cJSON *facts = cJSON_ParseWithLength(facts_text, len);
    part(batch, message, OAUTH_MAIL_PART_RAW, 0, &len);
    printf("message %zu %s", len, string(facts, "subject"));
    cJSON *file;
    cJSON_ArrayForEach(file, cJSON_GetObjectItem(facts, "attachments")) {
      part(batch, message, OAUTH_MAIL_PART_ATTACHMENT, (uint32_t)cJSON_GetObjectItem(file, "part_index")->valueint, &len);
      printf(" %zu", len);
    }
    say("", NULL);
    cJSON_Delete(facts);
    const uint8_t *key = part(batch, message, OAUTH_MAIL_PART_KEY, 0, &len);
    char *name = strndup((const char *)key, len);
    cJSON_AddStringToObject(results, name, "imported");
    free(name);
  }
  return results;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (file == NULL) return 2;
  char *text = calloc(1, 1 << 20);
  if (fread(text, 1, (1 << 20) - 1, file) == 0) return 2;
  fclose(file);
  cJSON *walk = cJSON_Parse(text);
  free(text);

  void *library = dlopen(string(walk, "library"), RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  OauthMailV1Api entry;
  *(void **)&entry = dlsym(library, "oauth_mail_v1_api");
  size_t size = 0;
  api = entry(&size);
  if (size < sizeof(OauthMailApi) || api->version != OAUTH_MAIL_ABI_VERSION) return 1;

  OauthMailHandle plugin, nothing, batch, error = 0;
  char *config = cJSON_PrintUnformatted(cJSON_GetObjectItem(walk, "plugin"));
  uint32_t status = api->plugin_new((const uint8_t *)config, strlen(config), NULL, &plugin, &error);
  free(config);
  if (status != OAUTH_MAIL_OK) fail("plugin_new", status, error);

  if (call(api->open, plugin, with("incoming", cJSON_CreateObject()), &nothing, &error) == OAUTH_MAIL_SETTINGS) {
    cJSON *faults = take(error);
    say("refused", string(cJSON_GetArrayItem(cJSON_GetObjectItem(faults, "faults"), 0), "pointer"));
    cJSON_Delete(faults);
  }
  OauthMailHandle inbox = opened(plugin, walk, "incoming"), outbox = opened(plugin, walk, "outgoing");
  if (call(api->fetch_batch, inbox, cJSON_CreateObject(), &batch, NULL) == OAUTH_MAIL_CONSENT_REQUIRED) consent(inbox);

  status = call(api->fetch_batch, inbox, with("max_messages", cJSON_CreateNumber(100)), &batch, &error);
  if (status != OAUTH_MAIL_OK) fail("fetch_batch", status, error);
  cJSON *results = import(batch);
  api->release(batch);
  cJSON *settled = ask("settle_batch", api->settle_batch, inbox, with("results", results));
  printf("settled %d\n", cJSON_GetArraySize(cJSON_GetObjectItem(settled, "done")));
  cJSON_Delete(settled);

  cJSON *mail = with("subject", cJSON_CreateString("From C"));
  cJSON_AddItemToArray(cJSON_AddArrayToObject(mail, "to"), cJSON_CreateString(string(walk, "to")));
  cJSON_AddStringToObject(mail, "text", "It works.\n");
  cJSON *sent = ask("send_message", composed, outbox, mail);
  say(string(sent, "outcome"), NULL);
  cJSON_Delete(sent);

  api->release(inbox);
  api->release(outbox);
  api->release(plugin);
  cJSON_Delete(walk);
  say("done", NULL);
  return 0;
}
