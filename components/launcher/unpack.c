/*
 * Unpacks the payload into DATA/data/<id>. It is written to a hidden directory that is renamed when it is whole, under a lock,
 * so that a payload that can be seen is complete and two starts at once unpack it once.
 *
 * A power cut can lose what the kernel had not written yet. To wait for the disk would cost seconds on every first start, so a
 * payload carries the id of the boot that it was unpacked in, and later, when its pages have long been written, a mark that it
 * was synced. One with neither the mark nor the present boot's id is unpacked again.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BOOT_ID_BYTES = 36, MODE_LIMIT = 0755, THREADS_LIMIT = 4, SETTLED_AGE_SECONDS = 60 };

static const char boot_mark[] = ".boot", synced_mark[] = ".synced";

static bool read_boot_id(const char *path, char id[BOOT_ID_BYTES]) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool whole = fd >= 0 && read(fd, id, BOOT_ID_BYTES) == BOOT_ID_BYTES;
  if (fd >= 0)
    close(fd);
  return whole;
}

static bool marked(const char *directory, const char *mark) {
  char path[PATH_MAX];
  format_path(path, sizeof path, "%s/%s", directory, mark);
  return access(path, F_OK) == 0;
}

static bool is_whole(const char *directory) {
  char path[PATH_MAX], unpacked_in[BOOT_ID_BYTES], now[BOOT_ID_BYTES];
  if (marked(directory, synced_mark))
    return true;
  format_path(path, sizeof path, "%s/%s", directory, boot_mark);
  return read_boot_id(path, unpacked_in) && read_boot_id("/proc/sys/kernel/random/boot_id", now) &&
         memcmp(unpacked_in, now, BOOT_ID_BYTES) == 0;
}

bool find_payload(const struct artifact *artifact, const char *data_directory, char *path, size_t size) {
  format_path(path, size, "%s/data/%s", data_directory, artifact->payload_id);
  return is_whole(path) && who_changes_path(artifact, path) == NULL && who_changes_tree(artifact, path) == NULL;
}

void settle_payload(const char *path) {
  struct stat status;
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return;
  if (!marked(path, synced_mark) && fstat(directory, &status) == 0 && status.st_uid == geteuid() &&
      time(NULL) - status.st_mtime > SETTLED_AGE_SECONDS && syncfs(directory) == 0) {
    int mark = openat(directory, synced_mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (mark >= 0)
      close(mark);
  }
  close(directory);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
  (void)status, (void)type, (void)place;
  return remove(path);
}

static void remove_tree(const char *path) {
  enum { OPEN_DIRECTORIES = 16 };
  nftw(path, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Whoever holds the lock is the only one who unpacks, so every hidden directory is of a process that died. */
static void remove_leftovers(const char *parent) {
  DIR *directory = opendir(parent);
  for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
    size_t length = strlen(entry->d_name);
    if (entry->d_name[0] == '.' && length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0) {
      char path[PATH_MAX];
      format_path(path, sizeof path, "%s/%s", parent, entry->d_name);
      remove_tree(path);
    }
  }
  if (directory != NULL)
    closedir(directory);
}

/* An ordinary user's cache is for short commands: it keeps one version. What runs from another has its files open. */
static void remove_others(const char *parent, const char *payload_id) {
  DIR *directory = opendir(parent);
  for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
    const char *name = entry->d_name;
    bool is_payload = strlen(name) == PAYLOAD_ID_DIGITS && strspn(name, "0123456789abcdef") == PAYLOAD_ID_DIGITS;
    if (!is_payload || strcmp(name, payload_id) == 0)
      continue;
    char path[PATH_MAX];
    format_path(path, sizeof path, "%s/%s", parent, name);
    remove_tree(path);
  }
  if (directory != NULL)
    closedir(directory);
}

static void make_directories(const char *path) {
  char part[PATH_MAX];
  format_path(part, sizeof part, "%s", path);
  for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
    if (slash != NULL)
      *slash = '\0';
    if (mkdir(part, 0755) != 0 && errno != EEXIST)
      fail("create %s: %s; choose another directory with --data-dir", part, strerror(errno));
    if (slash == NULL)
      return;
    *slash = '/';
  }
}

/* What would fail late, or only when the first program is started, is found first. */
static void check_file_system(const char *path, const struct artifact *artifact) {
  struct statvfs status;
  if (statvfs(path, &status) != 0)
    return;
  if (status.f_flag & ST_NOEXEC)
    fail("run programs from %s: it is mounted noexec; remount it with exec or choose another directory with --data-dir", path);
  uint64_t needed = 0, available = (uint64_t)status.f_bavail * status.f_frsize;
  for (unsigned i = 0; i < artifact->footer.section_count; i++)
    needed += artifact->footer.sections[i].unpacked_size;
  if (available < needed)
    fail("unpack to %s: it needs %lu MB and %lu MB are free; free some or choose another directory with --data-dir", path,
         (unsigned long)(needed / 1000000), (unsigned long)(available / 1000000));
}

/* Programs that another user can replace would be run as the one who starts this. */
static void check_path(const struct artifact *artifact, const char *path) {
  const char *who = who_changes_path(artifact, path);
  if (who != NULL)
    fail("run programs from %s: %s; make it root's alone (chown root, chmod go-w) or choose another directory with --data-dir",
         path, who);
}

static int open_entry(void *context, const struct entry *entry) {
  int directory = *(int *)context;
  switch (entry->type) {
  case ENTRY_DIRECTORY:
    /* Sections are unpacked at once, and each names the directories of its files. */
    if (mkdirat(directory, entry->path, entry->mode & MODE_LIMIT) == 0 || errno == EEXIST)
      errno = 0;
    return -1;
  case ENTRY_SYMLINK:
    if (symlinkat(entry->target, directory, entry->path) == 0)
      errno = 0;
    return -1;
  case ENTRY_FILE:
    return openat(directory, entry->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, entry->mode & MODE_LIMIT);
  }
  errno = EINVAL;
  return -1;
}

static void close_entry(void *context, int fd) {
  (void)context;
  close(fd);
}

struct unpacking {
  const struct artifact *artifact;
  int directory;
  atomic_uint next_section;
  _Atomic(const char *) problem;
  atomic_int cause;
};

static void *unpack_sections(void *context) {
  struct unpacking *unpacking = context;
  struct sink sink = {open_entry, close_entry, &unpacking->directory};
  for (unsigned i; (i = atomic_fetch_add(&unpacking->next_section, 1)) < unpacking->artifact->footer.section_count;) {
    const char *problem = decode_section(unpacking->artifact, i, &sink);
    if (problem != NULL) {
      unpacking->cause = errno;
      unpacking->problem = problem;
      break;
    }
  }
  return NULL;
}

static const char *unpack_all(struct unpacking *unpacking) {
  pthread_t threads[THREADS_LIMIT];
  int started = 0;
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  while (started < THREADS_LIMIT - 1 && started < processors - 1 &&
         pthread_create(&threads[started], NULL, unpack_sections, unpacking) == 0)
    started++;
  unpack_sections(unpacking);
  while (started > 0)
    pthread_join(threads[--started], NULL);
  errno = unpacking->cause;
  return unpacking->problem;
}

static void write_boot_mark(int directory) {
  char id[BOOT_ID_BYTES];
  if (!read_boot_id("/proc/sys/kernel/random/boot_id", id))
    fail("read /proc/sys/kernel/random/boot_id: %s", strerror(errno));
  int fd = openat(directory, boot_mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, id, sizeof id) != sizeof id)
    fail("write %s: %s", boot_mark, strerror(errno));
  close(fd);
}

_Noreturn static void fail_unpacking(const char *problem, const char *temporary, const char *path) {
  int cause = errno;
  remove_tree(temporary);
  if (strcmp(problem, "write") != 0)
    fail("unpack the payload: %s; copy the file again", problem);
  if (cause == ENOSPC || cause == EDQUOT)
    fail("unpack to %s: %s; free some space or choose another directory with --data-dir", path, strerror(cause));
  fail("unpack to %s: %s", path, strerror(cause));
}

/* `k8s reset` would remove what comes into the directory meanwhile, or leave it behind. */
static void refuse_during_reset(const char *data_directory) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  reset_lock(data_directory, address.sun_path, sizeof address.sun_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
    fail("start: `k8s reset` of %s is under way in process %d; wait for its end", data_directory, (int)peer.pid);
  if (fd >= 0)
    close(fd);
}

void unpack_payload(const struct artifact *artifact, const char *data_directory, bool alone, char *path, size_t size) {
  char parent[PATH_MAX], temporary[PATH_MAX], lock_path[PATH_MAX];
  mode_t mask = umask(022);

  refuse_during_reset(data_directory);
  format_path(parent, sizeof parent, "%s/data", data_directory);
  check_path(artifact, parent);
  make_directories(parent);
  check_path(artifact, parent);
  format_path(lock_path, sizeof lock_path, "%s/.lock", parent);
  int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0 || flock(lock, LOCK_EX) != 0)
    fail("lock %s: %s", lock_path, strerror(errno));

  if (!find_payload(artifact, data_directory, path, size)) {
    remove_leftovers(parent);
    check_file_system(parent, artifact);
    format_path(temporary, sizeof temporary, "%s/.%s.%d.tmp", parent, artifact->payload_id, (int)getpid());
    if (mkdir(temporary, 0755) != 0)
      fail("create %s: %s", temporary, strerror(errno));

    struct unpacking unpacking = {.artifact = artifact, .directory = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    const char *problem = unpack_all(&unpacking);
    if (problem != NULL)
      fail_unpacking(problem, temporary, parent);
    write_boot_mark(unpacking.directory);
    close(unpacking.directory);
    /* One of another boot that was never synced, or that another user could change. */
    const char *who = who_changes_tree(artifact, path);
    if (who != NULL && access(path, F_OK) == 0)
      fprintf(stderr, "k8s: unpacked the payload anew: %s\n", who);
    remove_tree(path);
    if (rename(temporary, path) != 0)
      fail("rename %s to %s: %s", temporary, path, strerror(errno));
    if (alone)
      remove_others(parent, artifact->payload_id);
  }
  close(lock);
  umask(mask);
}
