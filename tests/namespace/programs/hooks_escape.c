/* SPDX-License-Identifier: Apache-2.0
 * Stands in for ldconfig and tries to leave the container's root, as code of the container's would that had taken ldconfig
 * over: "name value" per line in /spy. With /spy-handle, a file handle of something outside, it opens that. With /spy-abi
 * it calls the kernel by the machine's other ABI. Static. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL(name) { #name, SYS_##name }
static const struct { const char *name; long number; } calls[] = {
    CALL(open_by_handle_at), CALL(name_to_handle_at), CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(unshare),
    CALL(setns), CALL(clone), CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(bpf), CALL(perf_event_open),
    CALL(add_key), CALL(request_key), CALL(keyctl), CALL(init_module), CALL(finit_module), CALL(delete_module),
    CALL(kexec_load), CALL(kexec_file_load), CALL(userfaultfd), CALL(socket), CALL(mknodat), CALL(prctl), CALL(ioctl), CALL(kill),
    CALL(reboot), CALL(swapon), CALL(syslog), CALL(acct), CALL(quotactl), CALL(memfd_create), CALL(fchownat), CALL(personality),
    { "clone3", 435 }, { "io_uring_setup", 425 }, { "open_tree", 428 }, { "move_mount", 429 }, { "fsopen", 430 },
    { "fsmount", 432 }, { "pidfd_open", 434 }, { "openat2", 437 }, { "pidfd_getfd", 438 }, { "mount_setattr", 442 },
    { "landlock_create_ruleset", 444 }, { "not yet known", 999 },
};

static void try_handle(FILE *out)
{
    union { struct file_handle handle; char bytes[256]; } known;
    char text[64] = "";
    int file = open("/spy-handle", O_RDONLY), outside;

    if (file < 0)
        return;
    if (read(file, known.bytes, sizeof known.bytes) < 0)
        return;
    outside = syscall(SYS_open_by_handle_at, open("/", O_RDONLY), &known.handle, O_RDONLY);
    if (outside >= 0 && read(outside, text, sizeof text - 1) < 0)
        text[0] = 0;
    fprintf(out, "escape %s\n", outside < 0 ? strerror(errno) : text);
}

int main(void)
{
    FILE *out = fopen("/spy", "w");

    if (!out)
        return 3;
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        errno = 0;
        syscall(calls[i].number, -1L, -1L, -1L, -1L, -1L, -1L);
        fprintf(out, "%s %s\n", calls[i].name, strerror(errno));
    }
    try_handle(out);
    fclose(out);
#ifdef __x86_64__
    if (!access("/spy-abi", F_OK)) {
        long answer;
        __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory", "r8", "r9", "r10", "r11"); /* getpid of i386 */
        return answer > 0 ? 4 : 5;
    }
#endif
    return 0;
}
