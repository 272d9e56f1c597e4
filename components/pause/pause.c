/*
 * The process that holds a pod's namespaces open. As the pod's first process it also reaps what is orphaned in a
 * shared process namespace, and it ends at once when the pod does.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
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
