// SPDX-License-Identifier: Apache-2.0
#include <asm/unistd.h>

/* All that depends on the processor: how the kernel is asked. Another one needs this function and nothing else. */
#ifndef __x86_64__
#error "write ask() for this processor"
#endif
static long ask(long number, long one, long two, long three, long four)
{
	long answer;
	register long fourth __asm__("r10") = four;

	__asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(one), "S"(two), "d"(three), "r"(fourth)
			 : "rcx", "r11", "memory");
	return answer;
}
