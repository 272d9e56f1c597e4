/*
 * The image that every pod needs, and so every node has. Its one program has two names:
 *
 *    /pause   the process of a pod that is always there
 *    /volume  makes and removes the directories of volumes (volume.c)
 */
#define _POSIX_C_SOURCE 200809L
#include "volume.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The process that holds a pod's namespaces open. As the pod's first process it also reaps what is orphaned in a
 * shared process namespace, and it ends at once when the pod does.
 */
static int hold(void) {
  sigset_t awaited;
  if (sigemptyset(&awaited) != 0 || sigaddset(&awaited, SIGINT) != 0 || sigaddset(&awaited, SIGTERM) != 0 ||
      sigaddset(&awaited, SIGCHLD) != 0 || sigprocmask(SIG_BLOCK, &awaited, NULL) != 0) {
    perror("pause: cannot block signals");
    return 1;
  }

  for (;;) {
    int signal_number;
    /* Blocked signals stay pending while we work, so no child and no stop request is missed. */
    if (sigwait(&awaited, &signal_number) != 0)
      return 1;
    if (signal_number != SIGCHLD)
      return 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
}

int main(int count, char **arguments) {
  const char *name = count > 0 ? strrchr(arguments[0], '/') : NULL;
  return name != NULL && strcmp(name, "/volume") == 0 ? volume(count, arguments) : hold();
}
