// SPDX-License-Identifier: Apache-2.0
/* Prints the arguments and the environment that it was given, and ends with status 7. */
#include <stdio.h>

extern char **environ;

int main(int argc, char **argv)
{
	(void)argc;
	for (char **word = argv; *word; word++)
		printf("argument %s\n", *word);
	for (char **word = environ; *word; word++)
		printf("environment %s\n", *word);
	return 7;
}
