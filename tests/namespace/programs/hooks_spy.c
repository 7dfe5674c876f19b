/* SPDX-License-Identifier: Apache-2.0
 * Stands in for ldconfig and writes to /spy what a confined program finds: one "name value" per line. Static. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void link_of(FILE *out, const char *name, const char *path)
{
    char text[256];
    ssize_t length = readlink(path, text, sizeof text - 1);

    text[length < 0 ? 0 : length] = 0;
    fprintf(out, "%s %s\n", name, text);
}

static void names_in(FILE *out, const char *name, const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    fprintf(out, "%s", name);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            fprintf(out, " %s", entry->d_name);
    fprintf(out, "\n");
}

static void lines_of(FILE *out, const char *path, const char *prefix)
{
    char line[512];
    FILE *in = fopen(path, "r");

    while (in && fgets(line, sizeof line, in))
        if (!strncmp(line, prefix, strlen(prefix)))
            fprintf(out, "%s%s", *prefix ? "" : "mount ", line);
}

int main(int argc, char **argv, char **envp)
{
    FILE *out = fopen("/spy", "w");
    struct stat self;
    int count = 0;

    if (!out)
        return 3;
    for (int i = 0; i < argc; i++)
        fprintf(out, "argument %s\n", argv[i]);
    for (int fd = 3; fd < 1024; fd++)
        if (fd != fileno(out) && fcntl(fd, F_GETFD) != -1)
            fprintf(out, "descriptor %d\n", fd);
    while (envp[count])
        fprintf(out, "environment %s\n", envp[count++]);
    fprintf(out, "pid %d\n", (int)getpid());
    link_of(out, "exe", "/proc/self/exe");
    link_of(out, "net", "/proc/self/ns/net");
    link_of(out, "ipc", "/proc/self/ns/ipc");
    link_of(out, "uts", "/proc/self/ns/uts");
    link_of(out, "stdin", "/proc/self/fd/0");
    if (!stat("/proc/self/exe", &self))
        fprintf(out, "inode %lu:%lu\n", (unsigned long)self.st_dev, (unsigned long)self.st_ino);
    fprintf(out, "mknod %s\n", mknod("/spy-disk", S_IFBLK | 0600, makedev(7, 200)) ? strerror(errno) : "done");
    fprintf(out, "chroot %s\n", chroot(".") ? strerror(errno) : "done");
    names_in(out, "root", "/");
    names_in(out, "processes", "/proc");
    lines_of(out, "/proc/self/status", "CapEff:");
    lines_of(out, "/proc/self/status", "CapBnd:");
    lines_of(out, "/proc/self/status", "NoNewPrivs:");
    lines_of(out, "/proc/self/status", "Seccomp:");
    lines_of(out, "/proc/self/limits", "Max core file size");
    lines_of(out, "/proc/self/limits", "Max data size");
    lines_of(out, "/proc/self/mountinfo", "");
    fclose(out);
    while (!access("/spy-sleeps", F_OK))
        ; /* there is no call to sleep with */
    for (int i = 0; i < 100000 && !access("/spy-prints", F_OK); i++)
        if (write(2, "one line\n\033[2J", 13) < 0)
            break; /* no more of it is taken */
    return access("/spy-fails", F_OK) ? 0 : 7;
}
