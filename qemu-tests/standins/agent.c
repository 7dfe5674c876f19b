// SPDX-License-Identifier: Apache-2.0
/*
 * A stand-in for kata-agent in boot tests. It is not kata-agent: it serves no RPC and starts no container. It prints
 * what its parent gave it, does what kata-agent does first as PID 1, then behaves as the command line says.
 *
 * Output, on stdout, one fact a line, every line begins with `agent: `:
 *   agent: stand-in agent, not kata-agent
 *   agent: clock start=4123456              (microseconds of the boot clock)
 *   agent: pid=1 ppid=0 pgid=0 sid=0 uid=0 gid=0
 *   agent: exe /usr/bin/kata-agent          agent: cwd /            agent: umask 022
 *   agent: argv 0 /usr/bin/kata-agent       agent: env PATH=/bin    agent: fd 0 -> /dev/console
 *   agent: limit nofile soft=1048576 hard=1048576        (nofile core nproc memlock stack fsize as; -1 = unlimited)
 *   agent: oom_score_adj -997
 *   agent: signals blocked=0000000000000000 ignored=0000000000000000 caught=0000000000000000
 *   agent: capabilities effective=000001ffffffffff bounding=000001ffffffffff no_new_privs=0
 *   agent: mount /proc proc proc rw,nosuid,nodev,noexec,relatime        (target, type, source, options)
 *   agent: cgroup 0::/                      agent: hostname sandbox     agent: modules_disabled 1
 *   agent: dev /dev/fd -> /proc/self/fd | absent | char 5:0 mode 0666
 *   agent: ldcache /etc/ld.so.cache bytes=12345 | absent
 *   agent: loopback up | down
 *   agent: proc processes=1 own=yes         (own: /proc shows this PID namespace: /proc/self is our getpid())
 *   agent: duty NAME done | present | forgiven WHY | refused WHY | failed WHY        (init mode only)
 *   agent: cgroup2 mounted=yes writable=yes agent: shm mounted=yes      agent: pts mounted=yes
 *   agent: orphans started=10000 zombies=0 ms=812       agent: flood sent=100000 failed=0 ms=400
 *   agent: ran pause status=0               (below-run: pause, script and program, each from where kata-agent has it)
 *   agent: gate /dev/nvidia0 Operation not permitted
 *   agent: sysctl kernel.sysrq=0
 *   agent: infiniband uverbs0 char 231:192  agent: text PATH: LINE      (rdma)
 *   agent: function BDF|PATH|NUMA|SPEED|WIDTH|MOST SPEED|MOST WIDTH     (rdma; of network and display functions)
 *   agent: acts WHAT                        last line before the behaviour
 *
 * Behaviour: `lab.agent=` on the kernel command line, words joined by commas, done in this order:
 *   attest:HOW (serve as the attestation agent, see agent_attest.c), container (run /lab/engine to its end), below-run (start programs
 *   from below /run), gate (open a GPU from a cgroup), network (address and route of the pod), complain (as kata-agent logs an error), orphans:N, flood:N, sysctls, rdma, ignore-term, then one of report (default: exit 0 after lab.agent.seconds), exit:N, crash, poweroff, restart, hold or listen (stay; SIGTERM ends it unless ignore-term).
 */
#include "agent.h"
#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENGINE LAB_DIR "/engine"
#define SANDBOX "/run/kata-containers"
#define STARTED "/run/lab-agent"	/* for whoever measures from outside */

enum { LOG_LIMIT_MS = 30000 };

struct behaviour {
	long orphans, flood, status;
	bool container, below_run, gate, network, complain, sysctls, rdma, ignore_term, stay;
	char ending[WORD_MAX], attestation[WORD_MAX];
};

static void refuse(const char *word)
{
	tell("agent: lab.agent: unknown word '%s'\n", word);
	exit(64);
}

static void read_word(struct behaviour *wanted, const char *word)
{
	if (!strncmp(word, "orphans:", 8))
		wanted->orphans = strtol(word + 8, NULL, 10);
	else if (!strncmp(word, "flood:", 6))
		wanted->flood = strtol(word + 6, NULL, 10);
	else if (!strncmp(word, "attest:", 7))
		snprintf(wanted->attestation, sizeof(wanted->attestation), "%s", word + 7);
	else if (!strcmp(word, "container"))
		wanted->container = true;
	else if (!strcmp(word, "sysctls"))
		wanted->sysctls = true;
	else if (!strcmp(word, "below-run"))
		wanted->below_run = true;
	else if (!strcmp(word, "gate"))
		wanted->gate = true;
	else if (!strcmp(word, "network"))
		wanted->network = true;
	else if (!strcmp(word, "complain"))
		wanted->complain = true;
	else if (!strcmp(word, "rdma"))
		wanted->rdma = true;
	else if (!strcmp(word, "ignore-term"))
		wanted->ignore_term = wanted->stay = true;
	else if (!strncmp(word, "exit:", 5))
		wanted->status = strtol(word + 5, NULL, 10);
	else if (!strcmp(word, "hold") || !strcmp(word, "listen"))
		wanted->stay = true;
	else if (!strcmp(word, "crash") || !strcmp(word, "poweroff") || !strcmp(word, "restart"))
		snprintf(wanted->ending, sizeof(wanted->ending), "%s", word);
	else if (strcmp(word, "report"))
		refuse(word);
}

static struct behaviour read_behaviour(void)
{
	struct behaviour wanted = { 0 };
	char text[WORD_MAX] = "";

	cmdline_value("lab.agent", text, sizeof(text));
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
		read_word(&wanted, word);
	return wanted;
}

static void end_machine(int how)
{
	if (mkdir(SANDBOX, 0755) < 0 && errno != EEXIST)	/* kata-agent's first sandbox made it long ago */
		tell("agent: mkdir " SANDBOX ": %s\n", strerror(errno));
	sync();
	reboot(how);	/* in a PID namespace this ends the namespace with SIGINT or SIGHUP, and does not return */
	tell("agent: reboot failed: %s\n", strerror(errno));
	exit(1);
}

static void run_container(void)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		execl(ENGINE, ENGINE, NULL);
		tell("agent: cannot start " ENGINE ": %s\n", strerror(errno));
		_exit(127);
	}
	tell("agent: container status=%d\n", child < 0 ? -1 : waitpid_retry(child));
}

static volatile sig_atomic_t asked_to_stop;

static void on_term(int number)
{
	(void)number;
	asked_to_stop = 1;
}

/* SIGTERM reaches PID 1 of a namespace only when it has a handler. */
static void stay(bool ignore_term)
{
	struct sigaction action = { .sa_handler = ignore_term ? SIG_IGN : on_term };

	sigaction(SIGTERM, &action, NULL);
	while (!asked_to_stop) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(200000);	/* SIGTERM ends it early; an orphan waits at most this long */
	}
	tell("agent: SIGTERM received, ending\n");
	exit(0);
}

/* What the machine is expected to say, a text a line, is in its log: only then may it end, or after some time. */
static void await_log(void)
{
	static char texts[TEXT_MAX];
	long until = now_ms() + LOG_LIMIT_MS;

	if (read_text(LAB_DIR "/until", texts, sizeof(texts)) < 0)
		return;
	for (char *text = strtok(texts, "\n"); text; text = strtok(NULL, "\n"))
		await_record(text, until - now_ms());
}

static void act(const struct behaviour *wanted)
{
	char text[WORD_MAX] = "report";
	char seconds[WORD_MAX] = "0";

	cmdline_value("lab.agent", text, sizeof(text));
	cmdline_value("lab.agent.seconds", seconds, sizeof(seconds));
	if (access(LAB_DIR "/clock", F_OK) == 0)
		write_text(STARTED, "", 0644);
	if (*wanted->attestation)
		start_attestation(wanted->attestation);
	if (wanted->container)
		run_container();
	if (wanted->below_run)
		run_below_run();
	if (wanted->gate)
		try_gate();
	if (wanted->network)
		join_network();
	if (wanted->complain)
		puts("{\"msg\":\"failed to open the address\",\"level\":\"ERRO\",\"ts\":\"0\",\"pid\":\"1\",\"source\":\"agent\","
		     "\"error\":\"Invalid address: nonsense\"}");
	if (wanted->orphans)
		storm_of_orphans(wanted->orphans);
	if (wanted->flood)
		flood_log(wanted->flood);
	if (wanted->sysctls)
		report_sysctls();
	if (wanted->rdma)
		report_rdma();
	if (wanted->ignore_term)
		signal(SIGTERM, SIG_IGN);
	tell("agent: acts %s\n", text);
	sleep_ms((long)(strtod(seconds, NULL) * 1000));
	await_log();
	if (!strcmp(wanted->ending, "crash"))
		crash();
	if (!strcmp(wanted->ending, "poweroff"))
		end_machine(RB_POWER_OFF);
	if (!strcmp(wanted->ending, "restart"))
		end_machine(RB_AUTOBOOT);
	if (wanted->stay)
		stay(wanted->ignore_term);
	exit((int)wanted->status);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], RAN))
		return 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	long start = boot_us();

	tell("agent: stand-in agent, not kata-agent\n");
	tell("agent: clock start=%ld\n", start);
	for (int i = 0; i < argc; i++)
		tell("agent: argv %d %s\n", i, argv[i]);
	report_facts();
	if (getpid() == 1)
		do_init_duties();
	struct behaviour wanted = read_behaviour();

	act(&wanted);
}
