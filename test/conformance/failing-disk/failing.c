/*
 * Preloaded into a program: below FAIL_DIRECTORY writing fails with EIO while there is a file $FAIL_WHEN.write, with EDQUOT
 * while there is one $FAIL_WHEN.quota, and syncing with EIO while there is one $FAIL_WHEN.sync.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int file, const char *operation, int error) {
  const char *directory = getenv("FAIL_DIRECTORY"), *when = getenv("FAIL_WHEN");
  if (directory == NULL || when == NULL) abort();
  char path[PATH_MAX], link[64];
  snprintf(path, sizeof path, "%s.%s", when, operation);
  if (access(path, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0 || strncmp(path, directory, strlen(directory)) != 0) return 0;
  errno = error;
  return 1;
}

static int write_fails(int file) {
  return fails(file, "write", EIO) || fails(file, "quota", EDQUOT);
}

int fsync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
  return fails(file, "sync", EIO) ? -1 : real(file);
}

int fdatasync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  return fails(file, "sync", EIO) ? -1 : real(file);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset) {
  ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
  return write_fails(file) ? -1 : real(file, data, bytes, offset);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off_t offset) {
  ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
  return write_fails(file) ? -1 : real(file, data, bytes, offset);
}

ssize_t write(int file, const void *data, size_t bytes) {
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  return write_fails(file) ? -1 : real(file, data, bytes);
}
