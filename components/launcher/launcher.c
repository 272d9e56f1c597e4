/* Picks the program, brings its files, sets its environment and becomes it. See launcher.h for the picture. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

/* kubectl's own idea of a server, where no kubeconfig names one, is whoever listens on port 8080 of this machine. This is no
 * address: nothing is dialed, and kubectl's error quotes it. */
static const char no_server[] = "https://no kubeconfig names a cluster";

/* Whether one of these files, with colons between them, is there. */
static bool any_is_there(const char *list) {
  char path[PATH_MAX];
  for (const char *end; *list != '\0'; list = *end == ':' ? end + 1 : end) {
    end = strchrnul(list, ':');
    format_path(path, sizeof path, "%.*s", (int)(end - list), list);
    if (access(path, F_OK) == 0 || errno == EACCES)
      return true;
  }
  return false;
}

/* As k3s does: $KUBECONFIG wins, then the cluster's own administrator. Where that file is out of reach and there is no
 * ~/.kube/config, it is named all the same: kubectl's "permission denied" says more than that there is no cluster. */
static void set_kubeconfig(const char *data_directory, bool needs_cluster) {
  const char *current = getenv("KUBECONFIG"), *home = getenv("HOME");
  char admin[PATH_MAX], own[PATH_MAX];
  if (current != NULL && current[0] != '\0') {
    if (needs_cluster && !any_is_there(current))
      fprintf(stderr, "k8s: KUBECONFIG is %s, which is not there: unset it for the cluster in %s\n", current, data_directory);
    return;
  }
  format_path(admin, sizeof admin, "%s/admin.kubeconfig", data_directory);
  format_path(own, sizeof own, "%s/.kube/config", home != NULL ? home : "");
  if (access(admin, R_OK) == 0 || (errno == EACCES && access(own, R_OK) != 0))
    setenv("KUBECONFIG", admin, 1);
  else if (access(own, R_OK) != 0 && needs_cluster)
    fprintf(stderr, "k8s: there is no cluster in %s: start one with systemctl start k8s, or k8s\n", data_directory);
}

/* Whether these arguments of kubectl (its name is the first) are for a cluster, and do not name it themselves. */
static bool asks_cluster(char **argv) {
  static const char *const others[] = {"completion", "config",   "help",         "kuberc",  "kustomize", "options", "plugin",
                                       "--client",   "--help",   "--kubeconfig", "--local", "--server",  "-h",      "-s"};
  if (argv[1] == NULL)
    return false;
  /* What follows -- is the command of a container. */
  for (char **argument = argv + 1; *argument != NULL && strcmp(*argument, "--") != 0; argument++)
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
      size_t length = strlen(others[i]);
      if (strncmp(*argument, others[i], length) == 0 && ((*argument)[length] == '\0' || (*argument)[length] == '='))
        return false;
    }
  return true;
}

_Noreturn static void fail_start(const char *program, const char *payload) {
  fail("start %s: %s; if somebody has changed it, remove %s: it is unpacked again", program, strerror(errno), payload);
}

_Noreturn static void become_tool(const struct settings *settings, const char *payload, char **argv) {
  char run[PATH_MAX], address[PATH_MAX], endpoint[PATH_MAX], program[PATH_MAX];
  run_directory(settings->data_directory, run, sizeof run);
  format_path(address, sizeof address, "%s/containerd/containerd.sock", run);
  format_path(endpoint, sizeof endpoint, "unix://%s", address);
  format_path(program, sizeof program, "%s/bin/%s", payload, settings->tool);
  bool kubectl = strcmp(settings->tool, "kubectl") == 0;
  set_kubeconfig(settings->data_directory, kubectl && asks_cluster(argv + settings->tool_index));
  if (kubectl)
    set_default("KUBERNETES_MASTER", no_server);
  set_default("CONTAINER_RUNTIME_ENDPOINT", endpoint);
  set_default("CONTAINERD_ADDRESS", address);
  set_default("CONTAINERD_NAMESPACE", "k8s.io");
  argv += settings->tool_index;
  argv[0] = (char *)settings->tool;
  execv(program, argv);
  fail_start(program, payload);
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

/* The daemon keeps a copy of it: an upgrade replaces this file. */
static void pass_artifact(void) {
  char path[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0)
    return;
  path[length] = '\0';
  setenv("K8S_ARTIFACT", path, 1);
}

/* Node takes back what is ignored when it starts (PlatformInit in its src/node.cc), and so would undo nohup. */
static void pass_hangup(void) {
  struct sigaction action;
  if (sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
    setenv("K8S_HANGUP_IGNORED", "1", 1);
}

/*
 * Of the C library: memory that is free goes back to the kernel, and threads share one arena of it. A daemon keeps 9 MB less of 122 so, and
 * its datastore uses no more of a processor.
 */
static void keep_little_memory(void) {
  setenv("MALLOC_ARENA_MAX", "1", 1);
  /* With any limit of one's own, those that grow by themselves do not (mallopt(3)). */
  setenv("MALLOC_TRIM_THRESHOLD_", "131072", 1);
}

_Noreturn static void become_daemon(const char *payload, int argc, char **argv) {
  char node[PATH_MAX], script[PATH_MAX], libraries[PATH_MAX];
  format_path(node, sizeof node, "%s/bin/node", payload);
  format_path(script, sizeof script, "%s/lib/main.js", payload);
  format_path(libraries, sizeof libraries, "%s/lib", payload);
  clean_environment();
  setenv("K8S_PAYLOAD_DIR", payload, 1);
  pass_artifact();
  pass_hangup();
  /* Node needs libatomic, which minimal systems lack. The daemon passes no environment of its own on. */
  setenv("LD_LIBRARY_PATH", libraries, 1);
  keep_little_memory();
  pass_notify_socket();
  execv(node, node_arguments(argc, argv, NULL, script));
  fail_start(node, payload);
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
  unpack_payload(artifact, shared ? data_directory : cache, !shared, payload, size);
}

/* Whoever starts it may have closed them (a cron or an init of its own). The next file that is opened would be taken
 * for the output, and get what is said: a part of the payload, for one. */
static void open_standard_descriptors(void) {
  int descriptor;
  do
    descriptor = open("/dev/null", O_RDWR);
  while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor > STDERR_FILENO)
    close(descriptor);
}

int main(int argc, char **argv) {
  open_standard_descriptors();
  /* Since Linux 5.18 none is an empty one. Whoever passes no arguments has not asked for a cluster. */
  if (argc == 0 || argv[0][0] == '\0')
    fail("start without a name in argv[0]");
  struct artifact artifact = open_artifact();
  struct settings settings = read_settings(argc, argv);
  if (settings.ask_daemon)
    ask_data_directory(&artifact, &settings);
  char payload[PATH_MAX], cache_path[PATH_MAX];
  const char *cache = geteuid() != 0 ? cache_directory(cache_path, sizeof cache_path) : NULL;

  bool found = find_payload(&artifact, settings.data_directory, payload, sizeof payload) ||
               (cache != NULL && find_payload(&artifact, cache, payload, sizeof payload));
  if (settings.tool != NULL) {
    if (!found)
      bring_payload(&artifact, settings.data_directory, cache, payload, sizeof payload);
    become_tool(&settings, payload, argv);
  }
  hide_token(&argc, argv);
  if (found) {
    settle_payload(payload);
  } else {
    /* Help, versions and errors in the arguments touch no file. */
    int code = run_from_memory(&artifact, argc, argv);
    if (code != EXIT_PAYLOAD_NEEDED)
      return code;
    bring_payload(&artifact, settings.data_directory, cache, payload, sizeof payload);
  }
  become_daemon(payload, argc, argv);
}
