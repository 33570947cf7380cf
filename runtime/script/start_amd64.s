//go:build !race

#include "textflag.h"

// func cloneRun(args *unix.CloneArgs-like, size uintptr, first, report unsafe.Pointer) int
//
// The parent returns; the child never does. It shares the parent's memory and the parent's stack pointer, so it neither
// calls, pushes nor touches the stack: R12 is the current call, R13 the report.
TEXT ·cloneRun(SB), NOSPLIT, $0-40
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ first+16(FP), R12
	MOVQ report+24(FP), R13
	MOVL $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ loop
	MOVQ AX, ret+32(FP)
	RET

loop:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	TESTQ AX, AX
	JLT pseudo
	SYSCALL
	JMP result
pseudo:
	MOVQ DI, AX
result:
	CMPQ AX, $-4095
	JCC bad
	TESTQ AX, AX
	JNE store
	TESTQ $1, 104(R12)
	JEQ store
	MOVQ $-32, AX // EPIPE
	JMP bad
store:
	MOVQ 80(R12), CX
	TESTQ CX, CX
	JEQ next
each:
	MOVQ (CX), DX
	TESTQ DX, DX
	JEQ next
	ADDQ $8, CX
	TESTQ $2, 104(R12)
	JNE wide
	MOVL AX, (DX)
	JMP each
wide:
	MOVQ AX, (DX)
	JMP each
next:
	MOVQ 56(R12), R12
	JMP loop

bad:
	MOVQ 64(R12), CX
	TESTQ CX, CX
	JEQ fail
	MOVQ 72(R12), DX
	TESTQ DX, DX
	JEQ onerror
	ADDQ AX, DX
	JNE fail
onerror:
	MOVQ CX, R12
	JMP loop

fail:
	NEGQ AX
	MOVL AX, 4(R13)
	MOVQ 88(R12), CX
	MOVQ CX, 24(R13)
	MOVQ 96(R12), CX
	MOVQ CX, 32(R13)
	MOVQ 40(R13), DI
	LEAQ 8(R13), SI
	MOVL $2, DX
	MOVL $20, AX // writev
	SYSCALL
	MOVL $1, DI
	TESTQ $4, 104(R12)
	JEQ exit
	MOVL $126, DI
	CMPL 4(R13), $2 // ENOENT
	JNE exit
	MOVL $127, DI
exit:
	MOVL $231, AX // exit_group
	SYSCALL
	INT $3
