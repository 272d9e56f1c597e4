/* Picks the program, brings its files, sets its environment and becomes it. See launcher.h for the picture. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* What node is started with: nobody at a terminal can act on its warning of an API that may change. */
static const char *const node_options[] = {"--disable-warning=ExperimentalWarning"};
enum { NODE_OPTION_COUNT = sizeof node_options / sizeof *node_options };

/* The daemon and node are in the first sections. */
enum { MEMORY_SECTIONS = 2 };

/* How the daemon, run from memory, says that it needs the payload. */
enum { EXIT_PAYLOAD_NEEDED = 100, EXIT_SIGNAL_BASE = 128 };

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("k8s: cannot ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(EXIT_FAILURE);
}

void format_path(char *path, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(path, size, format, arguments);
  va_end(arguments);
  if (length < 0 || (size_t)length >= size)
    fail("use a path of more than %zu bytes: %.80s...", size - 1, path);
}

static void set_default(const char *name, const char *value) { setenv(name, value, 0); }

/* As k3s does: $KUBECONFIG wins, then the cluster's own administrator. Where that file is out of reach and there is no
 * ~/.kube/config, it is named all the same: kubectl's "permission denied" says more than a connection refused. */
static void set_kubeconfig(const char *data_directory) {
  const char *current = getenv("KUBECONFIG"), *home = getenv("HOME");
  char admin[PATH_MAX], own[PATH_MAX];
  if (current != NULL && current[0] != '\0')
    return;
  format_path(admin, sizeof admin, "%s/admin.kubeconfig", data_directory);
  format_path(own, sizeof own, "%s/.kube/config", home != NULL ? home : "");
  if (access(admin, R_OK) == 0 || (errno == EACCES && access(own, R_OK) != 0))
    setenv("KUBECONFIG", admin, 1);
}

_Noreturn static void become_tool(const struct settings *settings, const char *payload, char **argv) {
  char run[PATH_MAX], address[PATH_MAX], endpoint[PATH_MAX], program[PATH_MAX];
  run_directory(settings->data_directory, run, sizeof run);
  format_path(address, sizeof address, "%s/containerd/containerd.sock", run);
  format_path(endpoint, sizeof endpoint, "unix://%s", address);
  format_path(program, sizeof program, "%s/bin/%s", payload, settings->tool);
  set_kubeconfig(settings->data_directory);
  set_default("CONTAINER_RUNTIME_ENDPOINT", endpoint);
  set_default("CONTAINERD_ADDRESS", address);
  set_default("CONTAINERD_NAMESPACE", "k8s.io");
  argv += settings->tool_index;
  argv[0] = (char *)settings->tool;
  execv(program, argv);
  fail("start %s: %s", program, strerror(errno));
}

/* Node has no Unix datagram sockets, so it is handed one that is connected to systemd. The variable goes, lest a child of the
 * daemon announces itself as the unit. */
static void pass_notify_socket(void) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
    return;
  memcpy(address.sun_path, path, strlen(path));
  /* sd_notify(3): @ stands for the NUL that starts an abstract name, which ends without one. */
  if (path[0] == '@')
    address.sun_path[0] = '\0';
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) != 0)
    fail("connect to NOTIFY_SOCKET %s: %s", path, strerror(errno));
  char number[16];
  snprintf(number, sizeof number, "%d", fd);
  setenv("K8S_NOTIFY_FD", number, 1);
  unsetenv("NOTIFY_SOCKET");
}

/* node OPTIONS [EXTRA] SCRIPT ARGUMENTS */
static char **node_arguments(int argc, char **argv, const char *extra, const char *script) {
  char **arguments = calloc((size_t)argc + NODE_OPTION_COUNT + 4, sizeof *arguments);
  if (arguments == NULL)
    fail("start: there is not enough memory");
  int count = 0;
  arguments[count++] = "node";
  for (int i = 0; i < NODE_OPTION_COUNT; i++)
    arguments[count++] = (char *)node_options[i];
  if (extra != NULL)
    arguments[count++] = (char *)extra;
  arguments[count++] = (char *)script;
  memcpy(arguments + count, argv + 1, (size_t)(argc - 1) * sizeof *argv);
  return arguments;
}

_Noreturn static void become_daemon(const char *payload, int argc, char **argv) {
  char node[PATH_MAX], script[PATH_MAX], libraries[PATH_MAX];
  format_path(node, sizeof node, "%s/bin/node", payload);
  format_path(script, sizeof script, "%s/lib/main.js", payload);
  format_path(libraries, sizeof libraries, "%s/lib", payload);
  setenv("K8S_PAYLOAD_DIR", payload, 1);
  /* Node needs libatomic, which minimal systems lack. The daemon passes no environment of its own on. */
  setenv("LD_LIBRARY_PATH", libraries, 1);
  unsetenv("K8S_LAUNCHER");
  pass_notify_socket();
  execv(node, node_arguments(argc, argv, NULL, script));
  fail("start %s: %s", node, strerror(errno));
}

struct memory_files {
  int node, script, library;
};

static int open_in_memory(void *context, const struct entry *entry) {
  struct memory_files *files = context;
  const struct {
    const char *path;
    int *fd;
  } wanted[] = {{"bin/node", &files->node}, {"lib/main.js", &files->script}, {"lib/libatomic.so.1", &files->library}};
  errno = 0;
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    if (strcmp(entry->path, wanted[i].path) == 0)
      return *wanted[i].fd = memfd_create(entry->path, 0);
  return -1;
}

static void keep_in_memory(void *context, int fd) { (void)context, (void)fd; }

static void run_in_memory(const struct memory_files *files, int argc, char **argv) {
  char script[32], library[32];
  snprintf(script, sizeof script, "/proc/self/fd/%d", files->script);
  snprintf(library, sizeof library, "/proc/self/fd/%d", files->library);
  setenv("LD_PRELOAD", library, 1);
  setenv("K8S_LAUNCHER", "unpacked-not", 1);
  unsetenv("K8S_PAYLOAD_DIR");
  /* The path of a memory file leads nowhere when it is resolved. */
  fexecve(files->node, node_arguments(argc, argv, "--preserve-symlinks-main", script), environ);
}

/* Help, versions and errors in the arguments touch no file: they are answered by the daemon run from memory. Returns when the
 * payload is needed. A kernel that forbids programs in memory (vm.memfd_noexec) leaves the answer to the unpacked one. */
static void answer_from_memory(const struct artifact *artifact, int argc, char **argv) {
  struct memory_files files = {-1, -1, -1};
  struct sink sink = {open_in_memory, keep_in_memory, &files};
  const char *problem = NULL;
  for (unsigned i = 0; i < MEMORY_SECTIONS && problem == NULL; i++)
    problem = decode_section(artifact, i, &sink);
  if (problem != NULL && strcmp(problem, "write") != 0)
    fail("unpack the payload: %s; copy the file again", problem);

  pid_t child = problem == NULL ? fork() : -1;
  if (child == 0) {
    run_in_memory(&files, argc, argv);
    _exit(EXIT_PAYLOAD_NEEDED);
  }
  close(files.node), close(files.script), close(files.library);
  if (child < 0)
    return;
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      fail("wait for node: %s", strerror(errno));
  if (WIFSIGNALED(status))
    exit(EXIT_SIGNAL_BASE + WTERMSIG(status));
  if (WEXITSTATUS(status) != EXIT_PAYLOAD_NEEDED)
    exit(WEXITSTATUS(status));
}

/* Where an ordinary user keeps a payload that nobody unpacked for all. */
static const char *cache_directory(char *path, size_t size) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (cache != NULL && cache[0] == '/')
    format_path(path, size, "%s/k8s", cache);
  else if (home != NULL && home[0] == '/')
    format_path(path, size, "%s/.cache/k8s", home);
  else
    return NULL;
  return path;
}

static bool writable(const char *directory) {
  char path[PATH_MAX];
  format_path(path, sizeof path, "%s", directory);
  while (access(path, F_OK) != 0 && strrchr(path, '/') != path)
    *strrchr(path, '/') = '\0';
  if (access(path, F_OK) != 0)
    return access("/", W_OK) == 0;
  return access(path, W_OK) == 0;
}

static void bring_payload(const struct artifact *artifact, const char *data_directory, const char *cache, char *payload,
                          size_t size) {
  if (isatty(STDERR_FILENO))
    fputs("k8s: unpacking, once per version ...\n", stderr);
  bool shared = cache == NULL || writable(data_directory);
  unpack_payload(artifact, shared ? data_directory : cache, payload, size);
}

int main(int argc, char **argv) {
  if (argc == 0)
    fail("start without a name in argv[0]");
  struct artifact artifact = open_artifact();
  struct settings settings = read_settings(argc, argv);
  char payload[PATH_MAX], cache_path[PATH_MAX];
  const char *cache = geteuid() != 0 ? cache_directory(cache_path, sizeof cache_path) : NULL;

  bool found = find_payload(&artifact, settings.data_directory, payload, sizeof payload) ||
               (cache != NULL && find_payload(&artifact, cache, payload, sizeof payload));
  if (settings.tool != NULL) {
    if (!found)
      bring_payload(&artifact, settings.data_directory, cache, payload, sizeof payload);
    become_tool(&settings, payload, argv);
  }
  if (found) {
    settle_payload(payload);
  } else {
    answer_from_memory(&artifact, argc, argv);
    bring_payload(&artifact, settings.data_directory, cache, payload, sizeof payload);
  }
  become_daemon(payload, argc, argv);
}
