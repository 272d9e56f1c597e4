/*
 * Preloaded into a program: below FAIL_DIRECTORY writing fails with EIO while there is a file $FAIL_WHEN.write, and
 * syncing while there is one $FAIL_WHEN.sync.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int file, const char *operation) {
  const char *directory = getenv("FAIL_DIRECTORY"), *when = getenv("FAIL_WHEN");
  if (directory == NULL || when == NULL) abort();
  char path[PATH_MAX], link[64];
  snprintf(path, sizeof path, "%s.%s", when, operation);
  if (access(path, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0 || strncmp(path, directory, strlen(directory)) != 0) return 0;
  errno = EIO;
  return 1;
}

int fsync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
  return fails(file, "sync") ? -1 : real(file);
}

int fdatasync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  return fails(file, "sync") ? -1 : real(file);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset) {
  ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
  return fails(file, "write") ? -1 : real(file, data, bytes, offset);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off_t offset) {
  ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
  return fails(file, "write") ? -1 : real(file, data, bytes, offset);
}
