/* Traces one process of its PID namespace and never waits for it, so that its parent cannot reap it.
 *
 * Usage: ptracer hold         a process that has not executed a program of /bin yet; it is stopped
 *        ptracer follow NAME  the next process of that command name; it goes on
 *
 * Writes "on", then "held PID".
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

#define AHEAD 64

static void keep(int pid) {
    printf("held %d\n", pid);
    fflush(stdout);
    for (;;)
        pause();
}

static void hold(int next) {
    for (;;)
        for (int pid = next; pid < next + AHEAD; pid++) {
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0)
                continue;
            ptrace(PTRACE_INTERRUPT, pid, 0, 0);
            usleep(20000); /* it stops where it looks for signals next */
            char path[64], exe[256] = {0};
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            if (readlink(path, exe, sizeof exe - 1) > 0 && strncmp(exe, "/bin/", 5) != 0)
                keep(pid);
            ptrace(PTRACE_DETACH, pid, 0, 0);
            next = pid + 1;
        }
}

static void follow(int next, const char *name) {
    for (;;)
        for (int pid = next; pid < next + AHEAD; pid++) {
            char path[64], comm[64] = {0};
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            FILE *file = fopen(path, "r");
            if (!file)
                continue;
            fgets(comm, sizeof comm, file);
            fclose(file);
            comm[strcspn(comm, "\n")] = 0;
            if (strcmp(comm, name) == 0 && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0)
                keep(pid);
        }
}

int main(int argc, char **argv) {
    puts("on");
    fflush(stdout);
    if (argc > 2)
        follow(getpid() + 1, argv[2]);
    hold(getpid() + 1);
}
