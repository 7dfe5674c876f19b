# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of every parser that eats foreign bytes: `./dev fuzz`. The corpus is replayed by the unit tier."""
