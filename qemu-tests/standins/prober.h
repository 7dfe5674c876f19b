// SPDX-License-Identifier: Apache-2.0
#ifndef LAB_PROBER_H
#define LAB_PROBER_H

#include <stdbool.h>

enum { WORDS_MAX = 32 };

struct line {
	int count;
	char *word[WORDS_MAX];
	char rest[1024];	/* what follows the second word, blanks kept */
};

/* prober_words.c */
/* A word of the line, or an empty one. */
const char *word(const struct line *line, int index);

/* `probe: VERB PATH ok` or `error NAME` after errno, with the time taken unless it is negative. */
void report(const char *verb, const char *path, bool ok, long ms);

/* prober_files.c */
void do_cat(const struct line *line);
void do_hex(const struct line *line);
void do_peek(const struct line *line);
void do_ls(const struct line *line);
void do_link(const struct line *line);
void do_stat(const struct line *line);
void do_write(const struct line *line);
void do_append(const struct line *line);
void do_fill(const struct line *line);

/* prober_devices.c */
void do_node(const struct line *line);
void do_open(const struct line *line);
void do_hold(const struct line *line);
void do_release(const struct line *line);
void do_parallel(const struct line *line);

/* prober_system.c */
void do_mount(const struct line *line);
void do_shrink(const struct line *line);
void do_insmod(const struct line *line);
void do_rmmod(const struct line *line);
void do_loopback(const struct line *line);
void do_sleep(const struct line *line);
void do_wait(const struct line *line);
void do_rename(const struct line *line);
void do_say(const struct line *line);
void do_poweroff(const struct line *line);

/* prober_programs.c */
void do_run(const struct line *line);
void do_spawn(const struct line *line);
void do_answer(const struct line *line);
void do_called(const struct line *line);
void do_kill(const struct line *line);
void do_await(const struct line *line);
void do_kmsg(const struct line *line);
void do_heard(const struct line *line);
void do_syslog(const struct line *line);

/* prober_life.c */
void do_census(const struct line *line);
void do_orphans(const struct line *line);
void do_flood(const struct line *line);
void do_clients(const struct line *line);
void do_scrapers(const struct line *line);
void do_flap(const struct line *line);
void do_hog(const struct line *line);

/* prober_rights.c */
void do_rights(const struct line *line);

#endif
