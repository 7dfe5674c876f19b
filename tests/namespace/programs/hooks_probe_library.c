/* SPDX-License-Identifier: Apache-2.0 */
int probe_answer(void);
int probe_answer(void) { return 42; }
