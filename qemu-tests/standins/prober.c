// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a script of probes inside the guest and prints what it found; every line it prints begins with `probe: `. It is
 * the init of hardware tests, and beside a real init it is the hand that breaks things at a given moment.
 *
 * Commands, one a line; # begins a comment. PATH arguments contain no blanks.
 *   mount TYPE PATH            make folders, mount                    -> probe: mount PATH ok | error NAME
 *   insmod FILE [PARAMETERS]   load a module                          -> probe: insmod FILE ok | error NAME
 *   rmmod NAME                                                        -> probe: rmmod NAME ok | error NAME
 *   cat PATH                   every line of a text file              -> probe: cat PATH: LINE | error NAME
 *   grep PATH TEXT             the lines with TEXT                    -> as cat
 *   hex PATH [N]               first N bytes                          -> probe: hex PATH 0123ab... | error NAME
 *   peek PATH OFFSET           a 32-bit register through mmap         -> probe: peek PATH OFFSET 180000a1 | error NAME
 *   ls PATH                    names, sorted                          -> probe: ls PATH: a b c | error NAME
 *   link PATH                                                         -> probe: link PATH -> TARGET | error NAME
 *   stat PATH                  of a character node                    -> probe: stat PATH 195:0 mode=666 | error NAME
 *   node PATH MAJOR MINOR      make a character node; MAJOR may be a name from /proc/devices
 *   open PATH                  open, close at once, timed             -> probe: open PATH ok ms=12 | error NAME ms=12
 *   hold PATH                  the same, but stays open               -> probe: hold PATH ok ms=12 | ...
 *   release PATH               close what hold opened                 -> probe: release PATH ok | error NAME
 *   parallel PATH PATH...      open all at the same time, close       -> probe: parallel ok=2 failed=0 ms=9
 *   write PATH TEXT            write TEXT and a newline               -> probe: write PATH ok | error NAME
 *   shrink PATH SIZE           a tmpfs has no more room than that     -> probe: shrink PATH ok | error NAME
 *   fill PATH [MS]             a file that takes all room there is     -> probe: fill PATH ok ms=80 | error NAME
 *   run PATH ARGS...           run a program, report its exit         -> probe: run PATH exit=0 ms=31
 *   spawn PATH ARGS...         start a program and go on              -> probe: spawn PATH ok
 *   syslog                     take /dev/log from here on             -> probe: syslog <30>... for each datagram
 *   kmsg TEXT                  lines of the kernel log with TEXT      -> probe: kmsg LINE
 *   loopback                   bring lo up                            -> probe: loopback lo ok | error NAME
 *   await NAME MS              until a process of that /proc/PID/comm exists -> probe: await NAME ok ms=12 | error NAME
 *   rename OLD NEW             another name for a network interface -> probe: rename OLD ok | error NAME
 *   sleep MS | wait PATH MS (until PATH exists) | kill NAME SIGNAL (all others of that /proc/PID/comm) | say TEXT | poweroff
 */
#define _GNU_SOURCE
#include "prober.h"
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *name;
	void (*act)(const struct line *line);
} commands[] = {
	{ "mount", do_mount },       { "insmod", do_insmod },     { "rmmod", do_rmmod },
	{ "cat", do_cat },           { "hex", do_hex },           { "ls", do_ls },
	{ "link", do_link },         { "node", do_node },         { "open", do_open },
	{ "hold", do_hold },         { "release", do_release },   { "parallel", do_parallel },
	{ "write", do_write },       { "run", do_run },           { "kmsg", do_kmsg },
	{ "sleep", do_sleep },       { "wait", do_wait },         { "kill", do_kill },
	{ "say", do_say },           { "poweroff", do_poweroff }, { "grep", do_cat },
	{ "spawn", do_spawn },       { "syslog", do_syslog },     { "loopback", do_loopback },
	{ "peek", do_peek },	     { "stat", do_stat },         { "fill", do_fill },
	{ "await", do_await },	     { "rename", do_rename },     { "shrink", do_shrink },
};

static void split(struct line *line, char *text)
{
	size_t head = strspn(text, " ");

	for (int skip = 0; skip < 2; skip++) {	/* the rest begins after two words */
		head += strcspn(text + head, " ");
		head += strspn(text + head, " ");
	}
	snprintf(line->rest, sizeof(line->rest), "%s", text + head);
	line->count = 0;
	for (char *at = strtok(text, " "); at && line->count < WORDS_MAX - 1; at = strtok(NULL, " "))
		line->word[line->count++] = at;
	line->word[line->count] = NULL;
}

static void obey(char *text)
{
	struct line line;

	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	split(&line, text);
	if (!line.count || *line.word[0] == '#')
		return;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, line.word[0])) {
			commands[i].act(&line);
			return;
		}
	printf("probe: unknown command %s\n", line.word[0]);
}

int main(int argc, char **argv)
{
	static char script[TEXT_MAX];
	const char *path = argc > 1 ? argv[1] : LAB_DIR "/script";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (read_text(path, script, sizeof(script)) < 0) {
		printf("probe: cannot read %s: %m\n", path);
		return 2;
	}
	for (char *line = script, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		obey(line);
	}
	if (getpid() == 1)
		do_poweroff(NULL);
	return 0;
}
