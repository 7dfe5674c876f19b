// SPDX-License-Identifier: Apache-2.0
/* What every stand-in needs: files, the kernel command line, the lab's fault table, time. No policy. */
#ifndef LAB_COMMON_H
#define LAB_COMMON_H

#include <stdbool.h>
#include <stddef.h>

enum { TEXT_MAX = 256 * 1024, WORD_MAX = 256 };	/* the largest file read whole: the driver's table of minors */

/* The lab's own folder in the guest; the product neither knows nor reads it. */
#define LAB_DIR "/lab"
#define LAB_FAULTS LAB_DIR "/faults"

/* The kernel's log, as /lab/init has made it for the lab's own programs; absent where that did not start the machine. */
#define LAB_LOG LAB_DIR "/kmsg"

/* A fact for whoever reads the machine's log. Each line goes into the kernel's log as one record, so that nothing that
 * others print breaks into it; to standard output where there is no LAB_LOG, or a line is longer than a record. */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next record of the kernel's log, less what the prober told; NULL when there is no more for now. */
char *next_record(int fd);

/* Until LAB_LOG has a record with that text, from its beginning on; false when the time is up, or there is no LAB_LOG. */
bool await_record(const char *wanted, long limit_ms);

/* Reads at most size - 1 bytes and terminates them; returns the length, or -1 with errno. */
long read_text(const char *path, char *into, size_t size);

/* Writes the whole text to an existing or new file; false with errno. */
bool write_text(const char *path, const char *text, int mode);

/* Value of `name=` in a line of words separated by white space; the last one wins, as in the kernel. */
bool word_value(const char *line, const char *name, char *into, size_t size);

/* The same for /proc/cmdline. */
bool cmdline_value(const char *name, char *into, size_t size);

/* A fault of one program: the file LAB_FAULTS has lines `program.fault=value`. A number that is none ends the program. */
bool fault_value(const char *program, const char *fault, char *into, size_t size);
bool fault_number(const char *program, const char *fault, long *value);

/* A memory fault: raise() from PID 1 of a namespace would be ignored. */
void crash(void);

/* Sleeps the whole time, also across signals. */
void sleep_ms(long ms);
long now_ms(void);

/* Microseconds of the kernel's boot clock: the same for every process, whatever its namespaces. */
long boot_us(void);

/* waitpid that a signal does not end; the exit status as a shell would show it, or -1. */
int waitpid_retry(int pid);

/* mkdir -p for the folders above and including the path. */
bool make_folders(const char *path, int mode);

#endif
