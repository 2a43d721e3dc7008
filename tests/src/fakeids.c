/* Preloaded into Postfix: its master insists on starting as root and on changing identity per daemon. It is told that
 * it is root and that every change succeeded; in truth all of it keeps the one ordinary user it was started as.
 * Only the tests use this. */
#include <sys/types.h>

static uid_t real_uid, effective_uid;
static gid_t real_gid, effective_gid;

uid_t getuid(void) { return real_uid; }
uid_t geteuid(void) { return effective_uid; }
gid_t getgid(void) { return real_gid; }
gid_t getegid(void) { return effective_gid; }
int setuid(uid_t uid) { real_uid = effective_uid = uid; return 0; }
int seteuid(uid_t uid) { effective_uid = uid; return 0; }
int setgid(gid_t gid) { real_gid = effective_gid = gid; return 0; }
int setegid(gid_t gid) { effective_gid = gid; return 0; }
int setgroups(size_t count, const gid_t *list) { (void)count; (void)list; return 0; }
int initgroups(const char *user, gid_t gid) { (void)user; (void)gid; return 0; }
int chown(const char *path, uid_t uid, gid_t gid) { (void)path; (void)uid; (void)gid; return 0; }
int fchown(int fd, uid_t uid, gid_t gid) { (void)fd; (void)uid; (void)gid; return 0; }
