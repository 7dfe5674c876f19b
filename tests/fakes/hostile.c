// SPDX-License-Identifier: Apache-2.0
/* A shared object that says when a loader takes it, as a library to preload or as an auditor. Without libc. */
static void say(const char *text, long size)
{
	long answer;

	__asm__ volatile("syscall" : "=a"(answer) : "a"(1L), "D"(2L), "S"(text), "d"(size) : "rcx", "r11", "memory");
}

__attribute__((constructor)) static void load(void)
{
	static const char text[] = "hostile: loaded\n";

	say(text, sizeof(text) - 1);
}

unsigned la_version(unsigned version)
{
	static const char text[] = "hostile: audits\n";

	say(text, sizeof(text) - 1);
	return version;
}
