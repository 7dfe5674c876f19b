// SPDX-License-Identifier: Apache-2.0
/*
 * Holds a container back until the GPUs of its machine are up: the startContainer hook of nvrc.agent.early.
 *
 * It runs in the container, as the container's user, where its program would start; this one file and the folder of PID 1's
 * word are mounted there, read-only. So it is static and needs nothing else of either root. The word is a file that PID 1
 * moves into the folder when everything is up. There is no limit of its own: PID 1 ends the machine when the GPUs do not
 * come, and the runtime ends a container that is stopped.
 *
 * inotify(7) tells of the file at once; where the kernel has no watch left, a look a second does.
 */
#include "ask.h"

#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/time_types.h>

#ifndef FOLDER
#define FOLDER "/run/nvrc/gpus"
#endif
#define WORD FOLDER "/ready"

enum { WAKE_S = 1, MOVED_TO = 0x80 };

void _start(void)
{
	static char events[4096];
	long watch = ask(__NR_inotify_init1, O_CLOEXEC | O_NONBLOCK, 0, 0, 0);

	ask(__NR_inotify_add_watch, watch, (long)FOLDER, MOVED_TO, 0);
	/* Asked after the watch is set: what comes in between is not missed. */
	while (ask(__NR_faccessat, AT_FDCWD, (long)WORD, 0, 0) != 0) {
		struct pollfd waiting = { .fd = watch < 0 ? -1 : (int)watch, .events = POLLIN };
		struct __kernel_timespec limit = { .tv_sec = WAKE_S };

		if (ask(__NR_ppoll, (long)&waiting, 1, (long)&limit, 0) > 0)
			ask(__NR_read, watch, (long)events, sizeof(events), 0);
	}
	ask(__NR_exit_group, 0, 0, 0, 0);
	__builtin_unreachable();
}
