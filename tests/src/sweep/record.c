/*
 * Writes down, in order, what a process does to the files of one folder: the raw material of power losses.
 *
 * LD_PRELOADed. RECORD_FOLDER: the folder. RECORD_LOG: the log, of records
 *   type (W write, T truncate, S sync, U unlink), length of the name (2 bytes), offset (8), length of the data (4), name, data
 * in the byte order of the machine. RECORD_FORGET set: every sync is claimed and none is made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static const char *folder(void) { return getenv("RECORD_FOLDER"); }

/* The name below the folder, or NULL for what is not in it. */
static const char *name_of(int fd, char *path, size_t size) {
    char link[64], *end = link;
    const char *prefix = "/proc/self/fd/";
    const char *base = folder();
    if (!base) return NULL;
    memcpy(end, prefix, 14);
    end += 14;
    char digits[12];
    int count = 0;
    do digits[count++] = '0' + fd % 10; while ((fd /= 10) > 0);
    while (count > 0) *end++ = digits[--count];
    *end = 0;
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    size_t start = strlen(base);
    if (strncmp(path, base, start) != 0 || path[start] != '/') return NULL;
    return path + start + 1;
}

static void record(char type, const char *name, uint64_t offset, const void *data, uint32_t length) {
    static int log = -1;
    if (log < 0) log = syscall(SYS_openat, AT_FDCWD, getenv("RECORD_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    uint16_t name_length = strlen(name);
    size_t size = 1 + 2 + 8 + 4 + name_length + length;
    char *line = malloc(size), *at = line;
    *at++ = type;
    memcpy(at, &name_length, 2); at += 2;
    memcpy(at, &offset, 8); at += 8;
    memcpy(at, &length, 4); at += 4;
    memcpy(at, name, name_length); at += name_length;
    if (length) memcpy(at, data, length);
    if (syscall(SYS_write, log, line, size) != (ssize_t)size) abort();
    free(line);
}

static void wrote(int fd, const void *data, ssize_t count, off64_t offset) {
    char path[4096];
    const char *name = count > 0 ? name_of(fd, path, sizeof path) : NULL;
    if (name) record('W', name, offset, data, count);
}

ssize_t write(int fd, const void *data, size_t size) {
    off64_t offset = lseek64(fd, 0, SEEK_CUR);
    if (offset >= 0 && (fcntl(fd, F_GETFL) & O_APPEND)) offset = lseek64(fd, 0, SEEK_END);
    ssize_t count = syscall(SYS_write, fd, data, size);
    if (offset >= 0) wrote(fd, data, count, offset);
    return count;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t count = syscall(SYS_pwrite64, fd, data, size, offset);
    wrote(fd, data, count, offset);
    return count;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
    char path[4096];
    int result = syscall(SYS_ftruncate, fd, size);
    const char *name = result == 0 ? name_of(fd, path, sizeof path) : NULL;
    if (name) record('T', name, size, NULL, 0);
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int number) {
    char path[4096];
    const char *name = name_of(fd, path, sizeof path);
    if (name && getenv("RECORD_FORGET")) return 0;
    int result = syscall(number, fd);
    if (name && result == 0) record('S', name, 0, NULL, 0);
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    const char *base = folder();
    int result = syscall(SYS_unlink, path);
    size_t start = base ? strlen(base) : 0;
    if (result == 0 && base && strncmp(path, base, start) == 0 && path[start] == '/') record('U', path + start + 1, 0, NULL, 0);
    return result;
}
