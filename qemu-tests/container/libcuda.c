/* SPDX-License-Identifier: Apache-2.0 */
/* The lab's libcuda.so.1: proof that a container's loader found the driver's library, and nothing else. */
int cuda_answer(void);

int cuda_answer(void)
{
	return 42;
}
