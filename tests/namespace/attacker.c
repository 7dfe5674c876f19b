// SPDX-License-Identifier: Apache-2.0
/*
 * What code does that an attacker runs inside a daemon or the worker: one try after another, each told as `NAME done` or
 * `NAME refused`. Nothing is changed where a try succeeds. Then `status NAME VALUE` for what the kernel says of the
 * process. Arguments: pid of another daemon, pid of a process of a container. A library as well: attack().
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "intruder.h"

enum { LIST_MOUNTS = 458, POISON = 100, PROCESS_EVENTS = 11, DEVICE_EVENTS = 15 };

static FILE *out;

static void tell(const char *name, bool done)
{
	fprintf(out, "%s %s\n", name, done ? "done" : "refused");
}

/* A system call with nonsense in its arguments: refused is only what was not even looked at. */
static void call(const char *name, long number, long one, long two, long three, long four)
{
	long answer = syscall(number, one, two, three, four, 0L, 0L);

	tell(name, answer >= 0 || (errno != EPERM && errno != ENOSYS));
}

static void open_one(const char *name, const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, 0600);

	tell(name, fd >= 0);
	if (fd >= 0)
		close(fd);
}

static void open_of(const char *name, const char *format, int pid, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), format, pid);
	open_one(name, path, flags);
}

static void reach_memory(const char *whose, int pid)
{
	char name[64], byte = 0;
	struct iovec own = { &byte, 1 }, theirs = { (void *)0x400000, 1 };
	struct rlimit limit;

	snprintf(name, sizeof(name), "%s-memory", whose);
	open_of(name, "/proc/%d/mem", pid, O_RDWR);
	snprintf(name, sizeof(name), "%s-root", whose);
	open_of(name, "/proc/%d/root", pid, O_RDONLY);
	snprintf(name, sizeof(name), "%s-maps", whose);
	open_of(name, "/proc/%d/maps", pid, O_RDONLY);
	snprintf(name, sizeof(name), "%s-status", whose);
	open_of(name, "/proc/%d/status", pid, O_RDONLY);
	snprintf(name, sizeof(name), "%s-command", whose);
	open_of(name, "/proc/%d/cmdline", pid, O_RDONLY);
	snprintf(name, sizeof(name), "%s-vm", whose);
	tell(name, process_vm_readv(pid, &own, 1, &theirs, 1, 0) == 1 || errno == EFAULT);
	snprintf(name, sizeof(name), "%s-ptrace", whose);
	tell(name, ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	snprintf(name, sizeof(name), "%s-signal", whose);
	tell(name, kill(pid, 0) == 0);
	snprintf(name, sizeof(name), "%s-limits", whose);
	tell(name, prlimit(pid, RLIMIT_CPU, NULL, &limit) == 0);
	snprintf(name, sizeof(name), "%s-group-signal", whose);
	tell(name, pid != 1 && kill(-pid, 0) == 0); /* minus one is everybody */
}

/* As it is scheduled already. */
static void slow_down(int pid)
{
	cpu_set_t processors;
	struct sched_param none = { 0 };
	int nice = getpriority(PRIO_PROCESS, (id_t)pid);

	tell("init-processors", sched_getaffinity(pid, sizeof(processors), &processors) == 0 &&
				sched_setaffinity(pid, sizeof(processors), &processors) == 0);
	tell("init-scheduler", sched_setscheduler(pid, SCHED_OTHER, &none) == 0);
	tell("init-niceness", setpriority(PRIO_PROCESS, (id_t)pid, nice) == 0);
	tell("init-io", syscall(SYS_ioprio_set, 1, pid, 0) == 0);
}

/* A file that is covered by another one can be opened, and shows that one. */
static void read_one(const char *name, const char *path)
{
	char head[8] = "";
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool is_read = fd >= 0 && read(fd, head, sizeof(head)) == (ssize_t)sizeof(head);

	tell(name, is_read && memcmp(head, "Linux ve", sizeof(head)) != 0);
	if (fd >= 0)
		close(fd);
}

static void own_signals(int pid)
{
	int ends[2];
	struct f_owner_ex owner = { F_OWNER_PID, pid };

	if (pipe(ends) < 0)
		return;
	tell("signal-by-owner", fcntl(ends[0], F_SETOWN, pid) == 0 || fcntl(ends[0], F_SETOWN_EX, &owner) == 0);
	tell("signal-everybody", kill(-1, 0) == 0);
	close(ends[0]);
	close(ends[1]);
}

static void change_machine(void)
{
	call("load-module", SYS_init_module, 0, 0, 0, 0);
	call("load-module-file", SYS_finit_module, -1, 0, 0, 0);
	call("unload-module", SYS_delete_module, (long)"none", O_NONBLOCK, 0, 0);
	call("kexec", SYS_kexec_load, 0, 1000, 0, 0);
	call("reboot", SYS_reboot, 0, 0, 0, 0);
	call("swap", SYS_swapon, (long)"/none", 0, 0, 0);
	call("accounting", SYS_acct, (long)"/none", 0, 0, 0);
	call("clock", SYS_clock_settime, CLOCK_REALTIME, 0, 0, 0);
	call("kernel-log", SYS_syslog, 10, 0, 0, 0);
	call("bpf", SYS_bpf, 0, 0, 0, 0);
	call("perf", SYS_perf_event_open, 0, 0, -1, -1);
	call("io-uring", SYS_io_uring_setup, 1, 0, 0, 0);
	call("asynchronous-io", SYS_io_setup, 1, 0, 0, 0);
	call("keys", SYS_keyctl, 0, -3, 0, 0);
	call("handle", SYS_open_by_handle_at, AT_FDCWD, 0, 0, 0);
	call("hostname", SYS_sethostname, (long)"x", -1, 0, 0);
	tell("mount", mount("none", "/tmp", "tmpfs", 0, "size=4k") == 0);
	call("new-mount", SYS_fsopen, (long)"tmpfs", 0, 0, 0);
	call("unmount", SYS_umount2, (long)"/none", 0, 0, 0);
	call("pivot", SYS_pivot_root, (long)"/none", (long)"/none", 0, 0);
	call("list-mounts", LIST_MOUNTS, 0, 0, 0, 0);
	tell("poison", madvise(NULL, 0, POISON) == 0); /* of no page; with every right that is none either */
	call("chroot", SYS_chroot, (long)"/none", 0, 0, 0);
	call("enter-namespace", SYS_setns, -1, 0, 0, 0);
	tell("new-namespace", unshare(CLONE_NEWNS) == 0);
	tell("new-user-namespace", unshare(CLONE_NEWUSER) == 0);
	tell("node", mknod("/tmp/node", S_IFBLK | 0600, makedev(1, 0)) == 0);
	unlink("/tmp/node");
	int vsock = socket(AF_VSOCK, SOCK_STREAM, 0);

	tell("vsock", vsock >= 0 || errno != EPERM);
	int events = socket(AF_NETLINK, SOCK_RAW, DEVICE_EVENTS);

	tell("uevents", events >= 0);
	close(events);
	events = socket(AF_NETLINK, SOCK_DGRAM, PROCESS_EVENTS);
	tell("process-events", events >= 0);
	close(events);
	tell("become-root", setresuid(0, 0, 0) == 0 && setresgid(0, 0, 0) == 0);
}

static void reach_files(void)
{
	open_one("core-pattern", "/proc/sys/kernel/core_pattern", O_WRONLY);
	open_one("sysrq", "/proc/sysrq-trigger", O_WRONLY);
	open_one("kcore", "/proc/kcore", O_RDONLY | O_DIRECTORY);
	open_one("memory-types", "/proc/mtrr", O_WRONLY);
	read_one("page-flags", "/proc/kpageflags");
	open_one("sysfs", "/sys/kernel/uevent_seqnum", O_WRONLY);
	open_one("cgroup", "/sys/fs/cgroup/cgroup.procs", O_WRONLY);
	open_one("preload", "/etc/ld.so.preload", O_WRONLY | O_CREAT);
	open_one("agent-program", "/usr/bin/kata-agent", O_WRONLY);
	int program = open("/usr/bin/kata-agent", O_RDONLY | O_CLOEXEC);

	tell("lease", program >= 0 && fcntl(program, F_SETLEASE, F_WRLCK) == 0);
	close(program);
	open_one("containers", "/run/kata-containers/pod/rootfs/secret", O_RDONLY);
	open_one("document", "/run/cdi/nvidia.yaml", O_WRONLY | O_CREAT);
	open_one("report", "/run/nvrc/boot.json", O_RDONLY);
	open_one("disk", "/dev/vda", O_RDWR);
	open_one("console", "/dev/kmsg", O_WRONLY);
}

/* Links in place of the sockets that containers are given: whoever follows one afterwards is told by the cell. */
static void mislead(void)
{
	static const char *const SOCKETS[] = { "/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket" };

	for (int i = 0; i < 2; i++) {
		unlink(SOCKETS[i]);
		if (symlink("/run/kata-containers/pod/rootfs/secret", SOCKETS[i]) < 0 && errno == EPERM)
			fprintf(out, "mislead refused\n");
	}
}

/* The folder is the kernel's own: what is in it is what a runtime looks at before it makes a node for a container. */
static void change_nodes(void)
{
	static const char link[] = "/dev/nvidia-caps/nvidia-cap9";

	tell("node-folder", symlink("/dev/vda", link) == 0);
	unlink(link);
}

static bool shows_others(void)
{
	DIR *folder = opendir("/proc");
	int others = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));)
		others += isdigit((unsigned char)*entry->d_name) && atoi(entry->d_name) != getpid();
	if (folder)
		closedir(folder);
	return others > 0;
}

static void tell_status(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		char *value = strchr(line, ':');

		if (!value || !strchr("CNSUG", *line))
			continue;
		*value = '\0';
		value[strcspn(value + 1, "\n") + 1] = '\0';
		fprintf(out, "status %s%s\n", line, value + 1);
	}
	if (file)
		fclose(file);
}

void attack(int fd, int daemon, int container)
{
	out = fdopen(dup(fd), "w");
	if (!out)
		return;
	setvbuf(out, NULL, _IOLBF, 0);
	tell_inherited(out, fd);
	reach_memory("init", 1);
	reach_memory("daemon", daemon);
	reach_memory("container", container);
	own_signals(daemon);
	slow_down(1);
	change_machine();
	reach_files();
	mislead();
	change_nodes();
	tell("see-others", shows_others());
	intrude(out);
	tell_status();
	fprintf(out, "end\n");
	fclose(out);
}

#ifndef LIBRARY
int main(int argc, char **argv)
{
	tell_environment(stdout);
	fflush(stdout);
	attack(1, argc > 1 ? atoi(argv[1]) : 1, argc > 2 ? atoi(argv[2]) : 1);
	return 0;
}
#endif
