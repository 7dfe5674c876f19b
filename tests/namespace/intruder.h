// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

/* Descriptors beside those of standard input, output and error, the answer's, and this list's own. To be asked first. */
void tell_inherited(FILE *answers, int answer);

/* Whether a program that was started has more of it than a path. */
void tell_environment(FILE *answers);

void intrude(FILE *answers);
