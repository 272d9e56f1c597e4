/* Who could change what is about to be run. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the kernel's own limit (path_resolution(7)). */
enum { LINKS_LIMIT = 40, OPEN_DIRECTORIES = 16, REASON_BYTES = PATH_MAX + 64 };

static char reason[REASON_BYTES];

static const char *because(const char *path, const char *what) {
  snprintf(reason, sizeof reason, "%s %s", path, what);
  return reason;
}

static bool trusted(const struct artifact *artifact, uid_t user) {
  return user == 0 || user == geteuid() || user == artifact->owner;
}

/* Whoever builds as a user of their own and runs with sudo may have a group of their own, too. */
static bool trusted_group(const struct artifact *artifact, gid_t group) {
  return artifact->owner != 0 && group == artifact->group;
}

static const char *belongs_to(const char *path, uid_t user) {
  char what[64];
  snprintf(what, sizeof what, "belongs to user %lu", (unsigned long)user);
  return because(path, what);
}

/* A directory on the way. In one that is sticky, as /tmp, nobody replaces what belongs to another. */
static const char *check_part(const struct artifact *artifact, const char *path, const struct stat *status) {
  if (!trusted(artifact, status->st_uid))
    return belongs_to(path, status->st_uid);
  if (S_ISLNK(status->st_mode) || (S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX) != 0))
    return NULL;
  if ((status->st_mode & S_IWOTH) != 0)
    return because(path, "can be changed by every user");
  if ((status->st_mode & S_IWGRP) != 0 && !trusted_group(artifact, status->st_gid))
    return because(path, "can be changed by its group");
  return NULL;
}

/* Puts the target of the link at `path` before what is left to walk. */
static bool follow_link(const char *path, char *rest, size_t size) {
  char target[PATH_MAX], joined[PATH_MAX];
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length <= 0)
    return false;
  target[length] = '\0';
  format_path(joined, sizeof joined, "%s/%s", target, rest);
  format_path(rest, size, "%s", joined);
  return true;
}

const char *who_changes_path(const struct artifact *artifact, const char *path) {
  char rest[PATH_MAX], walked[PATH_MAX] = "/";
  struct stat status;
  const char *problem = stat("/", &status) == 0 ? check_part(artifact, "/", &status) : NULL;
  format_path(rest, sizeof rest, "%s", path);
  for (int links = 0; problem == NULL && rest[0] != '\0';) {
    char part[PATH_MAX], next[PATH_MAX], *slash = strchrnul(rest, '/');
    format_path(part, sizeof part, "%.*s", (int)(slash - rest), rest);
    memmove(rest, *slash == '/' ? slash + 1 : slash, strlen(*slash == '/' ? slash + 1 : slash) + 1);
    if (part[0] == '\0' || strcmp(part, ".") == 0)
      continue;
    if (strcmp(part, "..") == 0) {
      char *last = strrchr(walked, '/');
      *(last == walked ? last + 1 : last) = '\0';
      continue;
    }
    format_path(next, sizeof next, "%s/%s", strcmp(walked, "/") == 0 ? "" : walked, part);
    if (lstat(next, &status) != 0)
      return errno == ENOENT ? NULL : because(next, strerror(errno));
    problem = check_part(artifact, next, &status);
    if (problem != NULL || !S_ISLNK(status.st_mode)) {
      format_path(walked, sizeof walked, "%s", next);
      continue;
    }
    if (++links > LINKS_LIMIT || !follow_link(next, rest, sizeof rest))
      return because(next, "leads nowhere");
    if (rest[0] == '/')
      strcpy(walked, "/");
  }
  return problem;
}

/* nftw(3) hands nothing on to its function. */
static const struct artifact *tree_artifact;

static int check_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
  (void)place;
  if (type == FTW_NS || type == FTW_DNR)
    return because(path, "cannot be read"), 1;
  if (!trusted(tree_artifact, status->st_uid))
    return belongs_to(path, status->st_uid), 1;
  if (!S_ISLNK(status->st_mode) && (status->st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return because(path, (status->st_mode & S_IWOTH) != 0 ? "can be changed by every user" : "can be changed by its group"), 1;
  return 0;
}

const char *who_changes_tree(const struct artifact *artifact, const char *directory) {
  tree_artifact = artifact;
  return nftw(directory, check_entry, OPEN_DIRECTORIES, FTW_PHYS) != 0 ? reason : NULL;
}
