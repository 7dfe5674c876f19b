/* SPDX-License-Identifier: Apache-2.0
 * The only process of a container: it starts if the loader finds libprobe.so.1 through the container's cache. */
#include <stdio.h>

int probe_answer(void);

int main(void)
{
    printf("answer %d\n", probe_answer());
    return 0;
}
