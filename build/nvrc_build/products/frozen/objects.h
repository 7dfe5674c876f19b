// SPDX-License-Identifier: Apache-2.0
/*
 * The forms of the objects in library.c and program.c, which objects.py writes: constants and code as the interpreter has them in memory,
 * so that a start makes none of them. All live for ever, so nothing counts references to them and no page of theirs is
 * written to but that of code that runs; the garbage collector passes over them.
 *
 * A text here is itself wherever the same text stands in another module, and the interpreter's own where it has one. It is
 * not interned before somebody asks for that, as a text that a program has put together.
 */
#define Py_BUILD_CORE
#include <Python.h>
#include <internal/pycore_code.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_global_objects.h>
#include <internal/pycore_long.h>
#include <internal/pycore_runtime.h>
#include <internal/pycore_setobject.h>

#define OBJECT(expression) ((PyObject *)&(expression))
#define UNTRACKED PyGC_Head before;
#define HIDDEN __attribute__((visibility("hidden")))

/* One that another file has. */
#define ELSEWHERE(name) extern HIDDEN PyObject name;
#define CODE_ELSEWHERE ELSEWHERE
#define ASCII_ELSEWHERE ELSEWHERE
#define WIDE_ELSEWHERE ELSEWHERE
#define BYTES_ELSEWHERE ELSEWHERE
#define INTEGER_ELSEWHERE ELSEWHERE
#define FLOAT_ELSEWHERE ELSEWHERE
#define TUPLE_ELSEWHERE(name) extern HIDDEN struct { UNTRACKED PyObject object; } name;
#define FROZENSET_ELSEWHERE TUPLE_ELSEWHERE

#define ASCII(name, size, digest, literal)						\
	HIDDEN struct { PyASCIIObject head; char data[(size) + 1]; } name = {		\
		{ PyObject_HEAD_INIT(&PyUnicode_Type) .length = (size), .hash = (digest),	\
		  .state = { .kind = 1, .compact = 1, .ascii = 1, .statically_allocated = 1 } }, literal };
#define WIDE(name, type, size, digest, ...)						\
	HIDDEN struct { PyCompactUnicodeObject head; type data[(size) + 1]; } name = {	\
		{ { PyObject_HEAD_INIT(&PyUnicode_Type) .length = (size), .hash = (digest),	\
		  .state = { .kind = sizeof(type), .compact = 1, .statically_allocated = 1 } }, 0, NULL },	\
		{ __VA_ARGS__ } };
#define BYTES(name, size, literal)							\
	HIDDEN struct { PyObject_VAR_HEAD Py_hash_t hash; char data[(size) + 1]; } name = {	\
		PyVarObject_HEAD_INIT(&PyBytes_Type, (size)) -1, literal };
#define INTEGER(name, sign, size, ...)							\
	HIDDEN struct { PyObject_HEAD uintptr_t tag; digit digits[size]; } name = {	\
		PyObject_HEAD_INIT(&PyLong_Type) TAG_FROM_SIGN_AND_SIZE(sign, size), { __VA_ARGS__ } };
#define FLOAT(name, value)								\
	HIDDEN PyFloatObject name = { PyObject_HEAD_INIT(&PyFloat_Type) value };
#define TUPLE(name, size, ...)								\
	HIDDEN struct { UNTRACKED struct { PyObject_VAR_HEAD PyObject *items[size]; } object; } name = {	\
		.object = { PyVarObject_HEAD_INIT(&PyTuple_Type, (size)) { __VA_ARGS__ } } };
#define FROZENSET(name, count, size, ...)						\
	static setentry name##_table[size] = { __VA_ARGS__ };				\
	HIDDEN struct { UNTRACKED PySetObject object; } name = { .object = { PyObject_HEAD_INIT(&PyFrozenSet_Type)	\
		.fill = (count), .used = (count), .mask = (size) - 1, .table = name##_table, .hash = -1 } };
/* In a section of their own: all that is written to as the program runs, and how launcher.c knows them. */
#define CODE(name, size, ...)								\
	HIDDEN __attribute__((section("static_code"))) struct _PyCode_DEF(size) name = {	\
		PyVarObject_HEAD_INIT(&PyCode_Type, (size) / sizeof(_Py_CODEUNIT)) __VA_ARGS__ };
