/*
 * Makes or removes the directory of a volume, for local-path-provisioner, whose helper pods run this as root:
 *
 *    volume -p PATH -a create|delete -m Filesystem [-s BYTES]
 *
 * PATH must lie below one of the directories in VOLUME_PATHS (with colons between them), or be named as the provisioner
 * names volumes, which may lie where they were kept formerly. Nothing else is touched: no link is followed, and nothing
 * that is mounted is entered. What a volume holds is anybody's: any names, any depth, any number.
 */
#define _GNU_SOURCE
#include "volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  VOLUME_MODE = 0777,  /* whoever a pod runs as */
  PARENT_MODE = 0700,  /* no other user of the machine */
  DEPTH_LIMIT = 32,    /* of open directories */
  FAILURES_LIMIT = 10, /* after so many it ends */
  MESSAGE_BYTES = 2048,
  WRONG_USE = 2,
};

static int failures;

/* A name may have anything in it: a line of a log is to stay one. */
static void tell(const char *format, ...) {
  char message[MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  fputs("volume: ", stderr);
  for (const char *byte = message; *byte != '\0'; byte++) {
    if ((unsigned char)*byte < ' ' || *byte == 0x7f)
      fprintf(stderr, "\\x%02x", (unsigned char)*byte);
    else
      fputc(*byte, stderr);
  }
  fputc('\n', stderr);
}

static const char *reason(int error) {
  switch (error) {
  case EXDEV:
  case EBUSY:
    return "something is mounted there: unmount it";
  case EPERM:
    return "Operation not permitted: it may be immutable (chattr -i)";
  default:
    return strerror(error);
  }
}

static void fail(const char *what, const char *name) {
  failures++;
  tell("cannot %s %s: %s", what, name, reason(errno));
}

/* A directory, whatever stands there by now: by no link, and with `resolve` on no other file system. */
static int open_directory(int parent, const char *name, unsigned long long resolve) {
  struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | resolve};
  return (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
}

static bool is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static void remove_entry(int parent, const char *name, int top, int depth);

/* One pass: some file systems pass over entries while others are removed. */
static void empty(int directory, int top, int depth) {
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = copy < 0 ? NULL : fdopendir(copy);
  if (entries == NULL) {
    fail("read", "a directory");
    if (copy >= 0)
      close(copy);
    return;
  }
  errno = 0;
  for (struct dirent *entry; failures < FAILURES_LIMIT && (entry = readdir(entries)) != NULL; errno = 0) {
    if (!is_dots(entry->d_name))
      remove_entry(directory, entry->d_name, top, depth);
  }
  if (errno != 0)
    fail("read", "a directory");
  closedir(entries);
}

static bool move_to_top(int parent, const char *name, int top) {
  static unsigned long moved;
  char free_name[32];
  for (;;) {
    snprintf(free_name, sizeof free_name, ".removed-%lu", moved++);
    /* Onto a directory of that name that is empty: as well. */
    if (renameat(parent, name, top, free_name) == 0)
      return true;
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
      return false;
  }
}

/*
 * Only what is within the volume, whose directory is `top` (-1 for that itself). Directories that lie too deep are moved
 * there, to have their turn again: a few are open at any time, however deep a pod has made them.
 */
static void remove_entry(int parent, const char *name, int top, int depth) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
    return;
  if (errno != EISDIR)
    return fail("remove", name);
  for (int before = failures; unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT;) {
    if (errno != ENOTEMPTY && errno != EEXIST)
      return fail("remove", name);
    if (depth >= DEPTH_LIMIT) {
      if (!move_to_top(parent, name, top))
        fail("move", name);
      return;
    }
    int directory = open_directory(parent, name, RESOLVE_NO_XDEV);
    if (directory < 0)
      return fail("enter", name);
    empty(directory, top < 0 ? directory : top, depth + 1);
    close(directory);
    if (failures != before)
      return;
  }
}

static int delete(int parent, const char *name) {
  struct stat status;
  if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? 0 : (fail("look at", name), 1);
  if (S_ISLNK(status.st_mode))
    tell("%s was a link: what it leads to stays", name);
  remove_entry(parent, name, -1, 0);
  return failures == 0 ? 0 : 1;
}

static const char volume_prefix[] = "pvc-";

static bool is_volume(const char *name) { return strncmp(name, volume_prefix, strlen(volume_prefix)) == 0; }

static bool is_volume_or_common(const char *name) { return is_volume(name) || strcmp(name, "lost+found") == 0; }

static bool is_none(const char *name) { return name == NULL; }

static bool holds_only(int directory, bool (*is_wanted)(const char *)) {
  bool does = true;
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = copy < 0 ? NULL : fdopendir(copy);
  if (entries == NULL)
    return false;
  for (struct dirent *entry; does && (entry = readdir(entries)) != NULL;)
    does = is_dots(entry->d_name) || is_wanted(entry->d_name);
  closedir(entries);
  return does;
}

/*
 * A directory that is there already is taken as it is, unless nothing is in it: it may be one that a crash has left
 * before it had its mode.
 */
static int create(int parent, const char *name) {
  bool keeps_volumes_only = holds_only(parent, is_volume_or_common);
  if (mkdirat(parent, name, PARENT_MODE) != 0 && errno != EEXIST)
    return fail("make", name), 1;
  int directory = open_directory(parent, name, 0);
  if (directory < 0) {
    tell("cannot take %s as a volume: %s", name,
         errno == ENOTDIR || errno == ELOOP ? "something else than a directory is there" : strerror(errno));
    return 1;
  }
  if (holds_only(directory, is_none) && fchmod(directory, VOLUME_MODE) != 0)
    return fail("open to all", name), 1;
  if (keeps_volumes_only && fchmod(parent, PARENT_MODE) != 0)
    return fail("close to others the directory of", name), 1;
  /* The claim is about to be told that it is there. */
  if ((fsync(directory) != 0 || fsync(parent) != 0) && errno != EINVAL)
    return fail("keep", name), 1;
  return 0;
}

static bool is_plain(const char *path) {
  if (path[0] != '/' || path[1] == '\0' || strlen(path) >= PATH_MAX)
    return false;
  for (const char *part = path; *part != '\0'; part = strchrnul(part + 1, '/')) {
    size_t length = (size_t)(strchrnul(part + 1, '/') - part) - 1;
    if (length == 0 || (length == 1 && part[1] == '.') || (length == 2 && strncmp(part + 1, "..", 2) == 0))
      return false;
  }
  return true;
}

static bool is_allowed(const char *path, const char *name) {
  const char *allowed = getenv("VOLUME_PATHS");
  /* pvc-UID_NAMESPACE_NAME */
  if (is_volume(name) && strchr(name, '_') != NULL)
    return true;
  while (allowed != NULL && *allowed != '\0') {
    size_t length = (size_t)(strchrnul(allowed, ':') - allowed);
    if (length > 1 && strncmp(path, allowed, length) == 0 && path[length] == '/')
      return true;
    allowed += length + (allowed[length] == ':');
  }
  return false;
}

int volume(int count, char **arguments) {
  const char *path = NULL, *action = "", *mode = "";
  for (int option; (option = getopt(count, arguments, "p:s:m:a:")) != -1;) {
    switch (option) {
    case 'p':
      path = optarg;
      break;
    case 'a':
      action = optarg;
      break;
    case 'm':
      mode = optarg;
      break;
    case 's':
      break;
    default:
      return WRONG_USE;
    }
  }
  bool creates = strcmp(action, "create") == 0;
  if (path == NULL || optind != count || (!creates && strcmp(action, "delete") != 0)) {
    tell("usage: volume -p PATH -a create|delete -m Filesystem [-s BYTES]");
    return WRONG_USE;
  }
  if (strcmp(mode, "Filesystem") != 0) {
    tell("cannot make a volume of mode %s: only Filesystem is supported", mode);
    return WRONG_USE;
  }
  if (!is_plain(path)) {
    tell("refused %s: it must be an absolute path without . and .., empty parts and a slash at its end", path);
    return WRONG_USE;
  }
  const char *slash = strrchr(path, '/'), *name = slash + 1;
  if (!is_allowed(path, name)) {
    const char *allowed = getenv("VOLUME_PATHS");
    tell("refused %s: it is not below %s (VOLUME_PATHS of the helper pod)", path, allowed ? allowed : "any directory");
    return WRONG_USE;
  }
  char above[PATH_MAX];
  snprintf(above, sizeof above, "%.*s", slash == path ? 1 : (int)(slash - path), path);
  int parent = open_directory(AT_FDCWD, above, 0);
  if (parent < 0) {
    fail("enter", above);
    return 1;
  }
  return creates ? create(parent, name) : delete(parent, name);
}
