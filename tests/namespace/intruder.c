// SPDX-License-Identifier: Apache-2.0
/*
 * More of what an attacker tries inside a daemon or the worker, told as in attacker.c: what a program might keep from PID 1
 * (descriptors, environment, rights), PID 1 itself by other ways, the network, the kernel's switches, the machine's devices.
 * Nothing is changed where a try succeeds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/random.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "intruder.h"

extern char **environ;

#define STOP _IOR('X', 125, unsigned int) /* of ext4, XFS and F2FS */

enum { PIDFD_GETFD = 438, MOUNT_SETATTR = 442, STATMOUNT = 457, FROM_HERE = 1024 };

static FILE *out;

static void tell(const char *name, bool done)
{
	fprintf(out, "%s %s\n", name, done ? "done" : "refused");
}

/* With nonsense for arguments: refused is only what was not even looked at. */
static void call(const char *name, long number, long one, long two)
{
	long answer = syscall(number, one, two, 0L, 0L, 0L, 0L);

	tell(name, answer >= 0 || (errno != EPERM && errno != ENOSYS));
}

static void open_one(const char *name, const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	tell(name, fd >= 0);
	if (fd >= 0)
		close(fd);
}

void tell_inherited(FILE *answers, int answer)
{
	DIR *folder = opendir("/proc/self/fd");
	char path[64], target[128];
	int others = 0;

	out = answers;
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		int fd = atoi(entry->d_name);
		ssize_t length;

		if (*entry->d_name == '.' || fd <= 2 || fd == answer || fd == fileno(out) || fd == dirfd(folder))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		length = readlink(path, target, sizeof(target) - 1);
		target[length < 0 ? 0 : length] = '\0';
		fprintf(out, "status Inherited\t%d:%s\n", fd, target);
		others++;
	}
	if (folder)
		closedir(folder);
	tell("descriptors", others > 0);
}

void tell_environment(FILE *answers)
{
	out = answers;
	tell("environment", environ && *environ && (strncmp(*environ, "PATH=", 5) || environ[1]));
}

/* Who starts none leaves none behind. */
static void start_process(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	tell("new-process", child > 0);
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void gain_rights(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct all[2] = { { ~0U, ~0U, ~0U }, { ~0U, ~0U, ~0U } };
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	struct sched_param first = { 1 };
	int score;

	tell("capabilities", syscall(SYS_capset, &head, all) == 0);
	tell("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_MODULE, 0, 0) == 0);
	tell("secure-bits", prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) == 0);
	tell("privileges-again", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
	tell("memory-limit", setrlimit(RLIMIT_DATA, &none) == 0);
	tell("core-limit", setrlimit(RLIMIT_CORE, &none) == 0);
	tell("file-limit", setrlimit(RLIMIT_NOFILE, &none) == 0);
	tell("real-time", sched_setscheduler(0, SCHED_FIFO, &first) == 0);
	tell("niceness", setpriority(PRIO_PROCESS, 0, -20) == 0);
	score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	tell("spared-by-oom", score >= 0 && write(score, "-1000", 5) == 5);
	close(score);
}

static void reach_init(void)
{
	static const char *const FILES[] = { "environ", "auxv", "fd", "fdinfo/0", "exe", "cwd", "pagemap", "syscall", "stack",
					     "ns/mnt", "io", "smaps", "timers", "map_files", "patch_state" };
	char name[64], path[64];
	long pages = 0, length = 0;
	void *head = NULL;
	int pidfd;

	for (unsigned long i = 0; i < sizeof(FILES) / sizeof(*FILES); i++) {
		struct stat found;

		snprintf(name, sizeof(name), "init-%s", FILES[i]);
		snprintf(path, sizeof(path), "/proc/1/%s", FILES[i]);
		tell(name, stat(path, &found) == 0 && open(path, O_RDONLY | O_CLOEXEC) >= 0);
	}
	tell("init-pages", syscall(SYS_move_pages, 1, 1L, &pages, NULL, &length, 0) == 0);
	tell("init-robust-list", syscall(SYS_get_robust_list, 1, &head, &length) == 0);
	tell("init-thread-signal", syscall(SYS_tkill, 1, 0) == 0);
	pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
	tell("init-pidfd-signal", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0);
	tell("init-descriptor", syscall(PIDFD_GETFD, pidfd, 0, 0) >= 0);
	tell("init-namespaces", setns(pidfd, CLONE_NEWNS | CLONE_NEWPID) == 0);
	close(pidfd);
}

static void reach_network(void)
{
	struct sockaddr_in low = { .sin_family = AF_INET, .sin_port = htons(7) };
	struct ifreq lo = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	tell("low-port", bind(fd, (struct sockaddr *)&low, sizeof(low)) == 0);
	tell("interface", ioctl(fd, SIOCGIFFLAGS, &lo) == 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
	tell("mark", setsockopt(fd, SOL_SOCKET, SO_MARK, &(int){ 1 }, sizeof(int)) == 0);
	tell("big-buffer", setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){ 1 << 20 }, sizeof(int)) == 0);
	close(fd);
	tell("packets", socket(AF_PACKET, SOCK_RAW, 0) >= 0);
	tell("raw-ip", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0);
	tell("ciphers", socket(AF_ALG, SOCK_SEQPACKET, 0) >= 0);
	tell("keys-of-networks", socket(AF_KEY, SOCK_RAW, 2) >= 0);
}

/* What a reader of credentials goes by: the group is nobody's to choose. */
static void forge(const char *name, struct ucred claim)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(claim))];
	} extra = { .head = { CMSG_LEN(sizeof(claim)), SOL_SOCKET, SCM_CREDENTIALS } };
	struct msghdr message = { .msg_iov = &(struct iovec){ "x", 1 }, .msg_iovlen = 1, .msg_control = extra.room,
				  .msg_controllen = sizeof(extra.room) };
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0)
		return;
	memcpy(CMSG_DATA(&extra.head), &claim, sizeof(claim));
	tell(name, sendmsg(ends[0], &message, MSG_DONTWAIT) == 1);
	close(ends[0]);
	close(ends[1]);
}

static void change_kernel(void)
{
	static const char *const SWITCHES[] = { "kernel/modprobe", "kernel/ns_last_pid", "kernel/hostname", "kernel/randomize_va_space",
						"vm/overcommit_memory", "vm/panic_on_oom", "net/ipv4/ip_forward", "fs/suid_dumpable",
						"kernel/yama/ptrace_scope", "kernel/printk" };
	static const char *const SYS[] = { "power/state", "bus/pci/rescan", "kernel/mm/transparent_hugepage/enabled",
					   "module/printk/parameters/time" };
	char name[96], path[128];

	for (unsigned long i = 0; i < sizeof(SWITCHES) / sizeof(*SWITCHES); i++) {
		snprintf(name, sizeof(name), "sysctl-%s", SWITCHES[i]);
		snprintf(path, sizeof(path), "/proc/sys/%s", SWITCHES[i]);
		open_one(name, path, O_WRONLY);
	}
	for (unsigned long i = 0; i < sizeof(SYS) / sizeof(*SYS); i++) {
		snprintf(name, sizeof(name), "sysfs-%s", SYS[i]);
		snprintf(path, sizeof(path), "/sys/%s", SYS[i]);
		open_one(name, path, O_WRONLY);
	}
	tell("new-cgroup", mkdir("/sys/fs/cgroup/intruder", 0700) == 0);
	rmdir("/sys/fs/cgroup/intruder");
	call("page-faults", SYS_userfaultfd, 0, 0);
	call("tree", SYS_open_tree, -1, 0);
	call("move-mount", SYS_move_mount, -1, 0);
	call("pick-mount", SYS_fspick, -1, 0);
	call("configure-mount", SYS_fsconfig, -1, 0);
	call("make-mount", SYS_fsmount, -1, 0);
	call("mount-attributes", MOUNT_SETATTR, -1, 0);
	call("describe-mount", STATMOUNT, 0, 0);
	call("kexec-file", SYS_kexec_file_load, -1, -1);
	call("add-key", SYS_add_key, 0, 0);
	call("request-key", SYS_request_key, 0, 0);
	call("swap-off", SYS_swapoff, (long)"/none", 0);
	call("time-of-day", SYS_settimeofday, -1, 0);
	call("adjust-time", SYS_adjtimex, 0, 0);
	call("domain", SYS_setdomainname, (long)"x", -1);
	call("watch-files", SYS_fanotify_init, 0, 0);
	call("compare", SYS_kcmp, 1, 1);
	call("quota", SYS_quotactl, 0, 0);
	call("hang-up", SYS_vhangup, -1, 0);
	call("name-to-handle", SYS_name_to_handle_at, -1, 0);
#ifdef SYS_iopl
	call("port-level", SYS_iopl, 4, 0);
	call("ports", SYS_ioperm, -1, -1);
	call("segments", SYS_modify_ldt, 3, 0);
#endif
}

static void reach_devices(void)
{
	static const char *const NODES[] = { "mem", "port", "fuse", "net/tun", "vsock", "userfaultfd", "ptmx", "tty", "console", "hpet",
					     "loop-control", "mapper/control", "cpu/0/msr", "hwrng", "tpm0", "kvm", "vhost-vsock", "snapshot" };
	char name[64], path[64];
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), random = open("/dev/urandom", O_RDWR | O_CLOEXEC), nothing = 0;

	for (unsigned long i = 0; i < sizeof(NODES) / sizeof(*NODES); i++) {
		snprintf(name, sizeof(name), "device-%s", NODES[i]);
		snprintf(path, sizeof(path), "/dev/%s", NODES[i]);
		open_one(name, path, O_RDWR);
	}
	/* With a request of no file system, where the kernel would take it. */
	tell("freeze", ioctl(root, FITHAW, 0) == 0 || errno == EINVAL);
	/* Of a flag that none knows: a file system that can be stopped for good says so, others do not know the request. */
	tell("stop-file-system", ioctl(root, STOP, &(int){ 4711 }) == 0 || errno != EPERM);
	close(root);
	tell("entropy", ioctl(random, RNDADDTOENTCNT, &nothing) == 0);
	tell("reseed", ioctl(random, RNDRESEEDCRNG, 0) == 0);
	close(random);
	tell("hard-link", link("/usr/bin/kata-agent", "/tmp/agent") == 0);
	unlink("/tmp/agent");
	tell("etc", mkdir("/etc/intruder", 0700) == 0);
	rmdir("/etc/intruder");
}

/* One more than the limit of processes lets there be. They end when this one lets go: it may not have signals. */
static void bomb(void)
{
	struct rlimit limit;
	pid_t born[FROM_HERE];
	int count = 0, most, ends[2];
	char byte;

	if (getrlimit(RLIMIT_NPROC, &limit) < 0 || limit.rlim_cur >= FROM_HERE || pipe(ends) < 0)
		return; /* the row has none */
	most = (int)limit.rlim_cur + 1;
	while (count < most && (born[count] = fork()) > 0)
		count++;
	if (count < most && born[count] == 0) {
		close(ends[1]);
		_exit(read(ends[0], &byte, 1) != 0);
	}
	tell("processes", count == most);
	close(ends[0]);
	close(ends[1]);
	while (count-- > 0)
		waitpid(born[count], NULL, 0);
}

void intrude(FILE *answers)
{
	out = answers;
	start_process();
	gain_rights();
	reach_init();
	reach_network();
	forge("forged-pid", (struct ucred){ 1, getuid(), getgid() });
	forge("forged-user", (struct ucred){ getpid(), 4711, getgid() });
	forge("forged-group", (struct ucred){ getpid(), getuid(), 4711 });
	change_kernel();
	reach_devices();
	bomb();
}
