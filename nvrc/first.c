// SPDX-License-Identifier: Apache-2.0
/*
 * The first program of a guest: /init and /sbin/init lead here. It becomes the frozen init, and takes nothing along.
 *
 * A word of the kernel command line that the kernel does not know is an argument, or with a `=` an environment variable,
 * of its first program. The frozen init is a dynamic program: with LD_PRELOAD=/dev/vda in its environment the loader would
 * run a disk of the host's as PID 1 before the first line of ours. This program is static and without libc, so that nothing
 * runs before _start below; it reads neither arguments nor environment, and the init gets an empty one: it needs none.
 *
 * A kernel that has no room for all of an initrd unpacks as much as fits and starts that, without the programs that judge and
 * attest if these come late. The factory puts LAST behind all other entries: if it is missing, so is something else.
 *
 * If that is so, or the init cannot be executed, PID 1 says it in the console's grammar (nvrc/vocabulary/console.py) and powers
 * off. Another process just ends: it must not take a machine down on which somebody tries this program.
 */
#include "ask.h"

#include <linux/fcntl.h>
#include <linux/reboot.h>

#define INIT "/usr/lib/nvrc/nvrc"
#define LAST "/usr/lib/nvrc/last"
#define FAILURE "nvrc: FATAL code=E_INIT_EXEC step=first what=\"cannot execute " INIT ": errno "
#define REMEDY "\" hint=\"rebuild the image; errno 2: the image lacks the program or its loader; errno 5: the root disk " \
	"cannot be read\"\n"
#define CUT "nvrc: FATAL code=E_INITRD step=first what=\"cannot read " LAST ", which the kernel unpacks last: errno "
#define MORE "\" hint=\"give the VM more memory: the kernel unpacks an initrd into half of it; errno 5: the root disk cannot " \
	"be read\"\n"

static char *append(char *end, const char *text)
{
	while (*text)
		*end++ = *text++;
	return end;
}

/* Standard error is the console, if the kernel could open one. */
static void say(const char *text, long size)
{
	static const char *const places[] = { "/dev/console", "/dev/kmsg" };
	long descriptor = 2;

	for (int next = 0; ask(__NR_write, descriptor, (long)text, size, 0) != size && next < 2; next++)
		descriptor = ask(__NR_openat, AT_FDCWD, (long)places[next], O_WRONLY | O_NOCTTY, 0);
}

static void power_off(void)
{
	static const unsigned ways[] = { LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART };

	for (int way = 0; way < 2; way++)
		ask(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, ways[way], 0);
	for (;;)
		ask(__NR_ppoll, 0, 0, 0, 0);
}

static void fail(const char *failure, long error, const char *remedy)
{
	static char line[512];
	char *end = append(line, failure);

	if (error >= 100)
		*end++ = (char)('0' + error / 100);
	if (error >= 10)
		*end++ = (char)('0' + error / 10 % 10);
	*end++ = (char)('0' + error % 10);
	end = append(end, remedy);
	say(line, end - line);
	if (ask(__NR_getpid, 0, 0, 0, 0) == 1)
		power_off();
	ask(__NR_exit_group, 1, 0, 0, 0);
}

/* It has content, as an empty file needs no room. */
static void check_last(void)
{
	char byte;
	long descriptor = ask(__NR_openat, AT_FDCWD, (long)LAST, O_RDONLY | O_CLOEXEC, 0);
	long answer = descriptor < 0 ? descriptor : ask(__NR_read, descriptor, (long)&byte, 1, 0);

	if (answer != 1)
		fail(CUT, -answer, MORE);
}

void _start(void)
{
	static const char *const arguments[] = { INIT, 0 }, *const environment[] = { 0 };

	check_last();
	fail(FAILURE, -ask(__NR_execve, (long)INIT, (long)arguments, (long)environment, 0), REMEDY);
	__builtin_unreachable();
}
