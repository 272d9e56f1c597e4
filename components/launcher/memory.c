/* Runs the daemon's bundle before anything is unpacked: from memory, with node and its library in memory files. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* What node is started with: nobody at a terminal can act on its warning of an API that may change. */
static const char *const node_options[] = {"--disable-warning=ExperimentalWarning"};
enum { NODE_OPTION_COUNT = sizeof node_options / sizeof *node_options };

/* The daemon and node are in the first sections. */
enum { MEMORY_SECTIONS = 2 };

enum { EXIT_SIGNAL_BASE = 128 };

/* What K8S_LAUNCHER says to the daemon: src/cli/command.ts, src/cli/main.ts. */
static const char not_unpacked[] = "unpacked-not", tell_data_directory[] = "data-directory";

char **node_arguments(int argc, char **argv, const char *extra, const char *script) {
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

/* Their digests are verified when this returns; NULL when the kernel takes no files in memory. They are read once. */
static const struct memory_files *memory_files(const struct artifact *artifact) {
  static struct memory_files files = {-1, -1, -1};
  struct sink sink = {open_in_memory, keep_in_memory, &files};
  if (files.node >= 0)
    return &files;
  for (unsigned i = 0; i < MEMORY_SECTIONS; i++) {
    const char *problem = decode_section(artifact, i, &sink);
    if (problem != NULL && strcmp(problem, "write") != 0)
      fail("unpack the payload: %s; copy the file again", problem);
    if (problem != NULL)
      return NULL;
  }
  return &files;
}

static void become_node(const struct memory_files *files, int argc, char **argv) {
  char script[32], library[32];
  snprintf(script, sizeof script, "/proc/self/fd/%d", files->script);
  snprintf(library, sizeof library, "/proc/self/fd/%d", files->library);
  setenv("LD_PRELOAD", library, 1);
  /* The path of a memory file leads nowhere when it is resolved. */
  fexecve(files->node, node_arguments(argc, argv, "--preserve-symlinks-main", script), environ);
}

struct memory_run {
  int argc;
  char **argv;
  const char *request;
  /* The configuration file to read, if not NULL. */
  const char *config_file;
  /* What its standard output and its standard error are; -1 for those of this process. */
  int output, errors;
};

/* A kernel that forbids programs in memory (vm.memfd_noexec) leaves the answer to the unpacked daemon. */
static int run(const struct artifact *artifact, const struct memory_run *run) {
  const struct memory_files *files = memory_files(artifact);
  pid_t child = files != NULL ? fork() : -1;
  if (child < 0)
    return EXIT_PAYLOAD_NEEDED;
  if (child == 0) {
    clean_environment();
    setenv("K8S_LAUNCHER", run->request, 1);
    if (run->config_file != NULL)
      setenv("K8S_CONFIG", run->config_file, 1);
    bool redirected = run->output < 0 || dup2(run->output, STDOUT_FILENO) >= 0;
    if (redirected && (run->errors < 0 || dup2(run->errors, STDERR_FILENO) >= 0))
      become_node(files, run->argc, run->argv);
    _exit(EXIT_PAYLOAD_NEEDED);
  }
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      fail("wait for node: %s", strerror(errno));
  return WIFSIGNALED(status) ? EXIT_SIGNAL_BASE + WTERMSIG(status) : WEXITSTATUS(status);
}

int run_from_memory(const struct artifact *artifact, int argc, char **argv) {
  return run(artifact, &(struct memory_run){.argc = argc, .argv = argv, .request = not_unpacked, .output = -1, .errors = -1});
}

void ask_data_directory(const struct artifact *artifact, struct settings *settings) {
  char *no_arguments[] = {"k8s", NULL}, answer[PATH_MAX] = "";
  /* Of its own commands the daemon tells itself what is wrong with the file; help works although something is. */
  int errors = settings->tool == NULL ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
  int output = memfd_create("answer", MFD_CLOEXEC);
  int code = run(artifact, &(struct memory_run){.argc = 1,
                                                .argv = no_arguments,
                                                .request = tell_data_directory,
                                                .config_file = settings->config_named ? settings->config_file : NULL,
                                                .output = output,
                                                .errors = errors});
  if (code == EXIT_PAYLOAD_NEEDED)
    fail("be sure of data-dir in %s, as this kernel runs no programs from memory; write data-dir: DIR on a line of its own",
         settings->config_file);
  ssize_t length = pread(output, answer, sizeof answer - 1, 0);
  close(output), close(errors);
  if (code == 0 && length > 1 && answer[length - 1] == '\n')
    format_path(settings->data_directory, sizeof settings->data_directory, "%.*s", (int)length - 1, answer);
  else if (settings->tool != NULL)
    exit(code != 0 ? code : EXIT_FAILURE);
}
