/* Tries to open for writing the files that every new process of its PID namespace has mapped, as fast as it can.
 *
 * Writes one line for each file and outcome, once: "writable PATH" or "refused ERRNO PATH".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define AHEAD 64
#define KEPT 512

static char kept[KEPT][512];
static int kept_count;

static void tell(const char *line) {
    for (int i = 0; i < kept_count; i++)
        if (strcmp(kept[i], line) == 0)
            return;
    if (kept_count == KEPT)
        return;
    strcpy(kept[kept_count++], line);
    puts(line);
    fflush(stdout);
}

static void look(int pid) {
    char directory[64], path[400], target[400], line[512];
    struct dirent *entry;
    snprintf(directory, sizeof directory, "/proc/%d/map_files", pid);
    DIR *files = opendir(directory);
    if (!files)
        return;
    while ((entry = readdir(files))) {
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        ssize_t size = readlink(path, target, sizeof target - 1);
        if (size < 0)
            continue;
        target[size] = 0;
        int fd = open(path, O_RDWR);
        if (fd >= 0) {
            close(fd);
            snprintf(line, sizeof line, "writable %s", target);
        } else
            snprintf(line, sizeof line, "refused %d %s", errno, target);
        tell(line);
    }
    closedir(files);
}

int main(void) {
    int self = getpid(), last = self;
    char path[64];
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
            look(pid);
        }
}
