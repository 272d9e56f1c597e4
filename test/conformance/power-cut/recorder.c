/*
 * Preloaded into a program, records what it asks of the file system below RECORD_DIRECTORY, in order, to the
 * file RECORD_LOG: what a disk would have seen up to any moment at which its power is cut. disk.ts reads it.
 *
 * One lock is held through each call and its record, so that the order of the records is the order of
 * the calls, and what was recorded before an fsync was written before it. For the same reason the program is killed from
 * here, when the file RECORD_KILL is there: a signal from outside could come between a call and its record.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation { CREATE = 1, MAKE_DIRECTORY, WRITE, TRUNCATE, SYNC, UNLINK, RENAME };

struct record {
  uint32_t operation;
  uint32_t path_bytes;
  uint64_t data_bytes;
  int64_t offset;
};

enum { MOST_FILES = 65536 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[MOST_FILES]; /* of the open files below the directory */
static const char *directory;
static size_t directory_bytes;
static const char *kill_file;
static int log_file = -1;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

static void give_up(const char *reason) {
  dprintf(STDERR_FILENO, "recorder: %s: %s\n", reason, strerror(errno));
  abort();
}

static void *real(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (found == NULL) give_up(name);
  return found;
}

__attribute__((constructor)) static void start(void) {
  real_open = real("open");
  real_close = real("close");
  real_mkdir = real("mkdir");
  real_unlink = real("unlink");
  real_rename = real("rename");
  real_fsync = real("fsync");
  real_fdatasync = real("fdatasync");
  real_ftruncate = real("ftruncate");
  real_write = real("write");
  real_pwrite = real("pwrite");
  directory = getenv("RECORD_DIRECTORY");
  const char *log = getenv("RECORD_LOG");
  kill_file = getenv("RECORD_KILL");
  if (directory == NULL || log == NULL || kill_file == NULL)
    give_up("RECORD_DIRECTORY, RECORD_LOG and RECORD_KILL are needed");
  directory_bytes = strlen(directory);
  log_file = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log_file < 0) give_up(log);
}

/* Before an operation: waits for those that are under way, and is where the program may be killed. */
static void begin(void) {
  pthread_mutex_lock(&lock);
  if (access(kill_file, F_OK) == 0) kill(getpid(), SIGKILL);
}

/* The path below the directory, or NULL for one that is not there. */
static const char *below(const char *path) {
  if (directory == NULL || path == NULL || strncmp(path, directory, directory_bytes) != 0) return NULL;
  if (path[directory_bytes] == '\0') return ".";
  return path[directory_bytes] == '/' ? path + directory_bytes + 1 : NULL;
}

static void append(enum operation operation, const char *path, const void *data, size_t bytes, int64_t offset) {
  struct record record = {operation, strlen(path), bytes, offset};
  struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path_bytes}, {(void *)data, bytes}};
  ssize_t wanted = sizeof record + record.path_bytes + bytes;
  if (writev(log_file, parts, 3) != wanted) give_up("cannot record");
}

static const char *path_of(int file) { return file >= 0 && file < MOST_FILES ? paths[file] : NULL; }

static int record_open(const char *path, int flags, mode_t mode) {
  const char *name = below(path);
  if (name == NULL) return real_open(path, flags, mode);
  begin();
  int is_new = (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
  int file = real_open(path, flags, mode);
  if (file >= MOST_FILES) give_up("too many files");
  if (file >= 0) {
    free(paths[file]);
    paths[file] = strdup(name);
    if (is_new) append(CREATE, name, NULL, 0, 0);
    else if ((flags & O_TRUNC) != 0) append(TRUNCATE, name, NULL, 0, 0);
  }
  pthread_mutex_unlock(&lock);
  return file;
}

static mode_t mode_argument(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return record_open(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return record_open(path, flags, mode);
}

int close(int file) {
  if (path_of(file) == NULL) return real_close(file);
  begin();
  free(paths[file]);
  paths[file] = NULL;
  int result = real_close(file);
  pthread_mutex_unlock(&lock);
  return result;
}

int mkdir(const char *path, mode_t mode) {
  const char *name = below(path);
  if (name == NULL) return real_mkdir(path, mode);
  begin();
  int result = real_mkdir(path, mode);
  if (result == 0) append(MAKE_DIRECTORY, name, NULL, 0, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int unlink(const char *path) {
  const char *name = below(path);
  if (name == NULL) return real_unlink(path);
  begin();
  int result = real_unlink(path);
  if (result == 0) append(UNLINK, name, NULL, 0, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int rename(const char *from, const char *to) {
  const char *name = below(from), *new_name = below(to);
  if (name == NULL || new_name == NULL) return real_rename(from, to);
  begin();
  int result = real_rename(from, to);
  if (result == 0) append(RENAME, name, new_name, strlen(new_name), 0);
  pthread_mutex_unlock(&lock);
  return result;
}

static ssize_t record_pwrite(int file, const void *data, size_t bytes, off_t offset) {
  const char *name = path_of(file);
  if (name == NULL) return real_pwrite(file, data, bytes, offset);
  begin();
  ssize_t written = real_pwrite(file, data, bytes, offset);
  if (written > 0) append(WRITE, name, data, written, offset);
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset) {
  return record_pwrite(file, data, bytes, offset);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off_t offset) {
  return record_pwrite(file, data, bytes, offset);
}

ssize_t write(int file, const void *data, size_t bytes) {
  const char *name = path_of(file);
  if (name == NULL) return real_write(file, data, bytes);
  begin();
  off_t offset = lseek(file, 0, SEEK_CUR);
  ssize_t written = real_write(file, data, bytes);
  if (written > 0) append(WRITE, name, data, written, offset);
  pthread_mutex_unlock(&lock);
  return written;
}

static int record_truncate(int file, off_t length) {
  const char *name = path_of(file);
  if (name == NULL) return real_ftruncate(file, length);
  begin();
  int result = real_ftruncate(file, length);
  if (result == 0) append(TRUNCATE, name, NULL, 0, length);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate(int file, off_t length) { return record_truncate(file, length); }
int ftruncate64(int file, off_t length) { return record_truncate(file, length); }

static int record_sync(int file, int (*sync)(int)) {
  const char *name = path_of(file);
  if (name == NULL) return sync(file);
  begin();
  int result = sync(file);
  if (result == 0) append(SYNC, name, NULL, 0, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int fsync(int file) { return record_sync(file, real_fsync); }
int fdatasync(int file) { return record_sync(file, real_fdatasync); }
