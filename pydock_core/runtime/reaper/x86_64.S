# The init of --init, x86-64.  See image.py for what it does.  r12: argv; ebx: main child; r13d: options of wait4.
    .text
    .globl _start
_start:
    lea   8(%rsp), %r12
    sub   $32, %rsp
    movq  $-1, (%rsp)             # all signals; 8(%rsp): the old mask; 16(%rsp): a status
    mov   $1, %r13d               # WNOHANG
    mov   $157, %eax              # prctl(PR_SET_NAME, "init")
    mov   $15, %edi
    lea   name(%rip), %rsi
    syscall
    mov   main_pid(%rip), %ebx
    test  %ebx, %ebx
    jnz   reap
    mov   $14, %eax               # rt_sigprocmask(SIG_SETMASK, all, &old, 8)
    mov   $2, %edi
    mov   %rsp, %rsi
    lea   8(%rsp), %rdx
    mov   $8, %r10d
    syscall
    mov   $57, %eax               # fork()
    syscall
    mov   %eax, %ebx
    test  %eax, %eax
    jz    child
    jns   reap
    mov   $125, %edi
    jmp   exit

reap:
    mov   $61, %eax               # wait4(-1, &status, options, NULL)
    mov   $-1, %rdi
    lea   16(%rsp), %rsi
    mov   %r13d, %edx
    xor   %r10d, %r10d
    syscall
    test  %eax, %eax
    jle   wait
    cmp   %ebx, %eax
    jne   reap
    mov   16(%rsp), %edi
    mov   %edi, %eax
    and   $0x7f, %eax
    jz    exited
    lea   128(%rax), %edi         # ended by a signal
    jmp   exit
exited:
    shr   $8, %edi
    and   $0xff, %edi
exit:
    mov   $231, %eax              # exit_group(code)
    syscall

wait:
    mov   $128, %eax              # rt_sigtimedwait(all, NULL, NULL, 8)
    mov   %rsp, %rdi
    xor   %esi, %esi
    xor   %edx, %edx
    mov   $8, %r10d
    syscall
    cmp   $17, %eax               # SIGCHLD
    je    reap
    test  %eax, %eax
    jg    forward
    cmp   $-4, %eax               # EINTR
    je    reap
    xor   %r13d, %r13d            # refused by a seccomp filter: wait for children only
    jmp   reap
forward:
    mov   %eax, %esi
    mov   %ebx, %edi
    mov   $62, %eax               # kill(main, signal)
    syscall
    jmp   wait

child:                            # execute argv[1], argv[2], ... up to "--": the places of the program
    mov   $109, %eax              # setpgid(0, 0)
    xor   %edi, %edi
    xor   %esi, %esi
    syscall
    mov   $39, %eax               # getpid()
    syscall
    mov   %eax, 16(%rsp)
    mov   $16, %eax               # ioctl(0, TIOCSPGRP, &pid): fails without a terminal
    xor   %edi, %edi
    mov   $0x5410, %esi
    lea   16(%rsp), %rdx
    syscall
    mov   $14, %eax               # rt_sigprocmask(SIG_SETMASK, &old, NULL, 8)
    mov   $2, %edi
    lea   8(%rsp), %rsi
    xor   %edx, %edx
    mov   $8, %r10d
    syscall
    mov   $127, %r15d             # the code if no place has it
    mov   %r12, %r13
mark:
    add   $8, %r13
    mov   (%r13), %rax
    test  %rax, %rax
    jz    failed
    cmpw  $0x2d2d, (%rax)         # "--"
    jne   mark
    cmpb  $0, 2(%rax)
    jne   mark
    mov   %r13, %r14
environment:
    add   $8, %r14
    cmpq  $0, (%r14)
    jne   environment
    add   $8, %r14
place:
    add   $8, %r12
    cmp   %r13, %r12
    je    failed
    mov   $59, %eax               # execve(place, argv, envp)
    mov   (%r12), %rdi
    lea   8(%r13), %rsi
    mov   %r14, %rdx
    syscall
    cmp   $-2, %eax               # ENOENT
    je    place
    cmp   $-20, %eax              # ENOTDIR
    je    place
    mov   $126, %r15d
    jmp   place
failed:
    mov   %r15d, %edi
    jmp   exit

name:
    .asciz "init"
    .balign 4
main_pid:
    .long 0
