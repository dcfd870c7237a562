// The init of --init, arm64.  See image.py for what it does.  x19: argv; w20: main child; w21: options of wait4.
    .text
    .globl _start
_start:
    add   x19, sp, #8
    sub   sp, sp, #32
    mov   x0, #-1
    str   x0, [sp]                // all signals; [sp+8]: the old mask; [sp+16]: a status
    mov   w21, #1                 // WNOHANG
    mov   x8, #167                // prctl(PR_SET_NAME, "init")
    mov   x0, #15
    adr   x1, name
    svc   #0
    adr   x1, main_pid
    ldr   w20, [x1]
    cbnz  w20, reap
    mov   x8, #135                // rt_sigprocmask(SIG_SETMASK, all, &old, 8)
    mov   x0, #2
    mov   x1, sp
    add   x2, sp, #8
    mov   x3, #8
    svc   #0
    mov   x8, #220                // clone(SIGCHLD, 0, 0, 0, 0)
    mov   x0, #17
    mov   x1, #0
    mov   x2, #0
    mov   x3, #0
    mov   x4, #0
    svc   #0
    mov   w20, w0
    cbz   w0, child
    cmp   w0, #0
    b.gt  reap
    mov   w0, #125
    b     exit

reap:
    mov   x8, #260                // wait4(-1, &status, options, NULL)
    mov   x0, #-1
    add   x1, sp, #16
    mov   w2, w21
    mov   x3, #0
    svc   #0
    cmp   w0, #0
    b.le  wait
    cmp   w0, w20
    b.ne  reap
    ldr   w1, [sp, #16]
    ands  w0, w1, #0x7f
    b.eq  exited
    add   w0, w0, #128            // ended by a signal
    b     exit
exited:
    ubfx  w0, w1, #8, #8
exit:
    mov   x8, #94                 // exit_group(code)
    svc   #0

wait:
    mov   x8, #137                // rt_sigtimedwait(all, NULL, NULL, 8)
    mov   x0, sp
    mov   x1, #0
    mov   x2, #0
    mov   x3, #8
    svc   #0
    cmp   w0, #17                 // SIGCHLD
    b.eq  reap
    cmp   w0, #0
    b.gt  forward
    cmn   w0, #4                  // EINTR
    b.eq  reap
    mov   w21, #0                 // refused by a seccomp filter: wait for children only
    b     reap
forward:
    mov   w1, w0
    mov   w0, w20
    mov   x8, #129                // kill(main, signal)
    svc   #0
    b     wait

child:                            // execute argv[1], argv[2], ... up to "--": the places of the program
    mov   x8, #154                // setpgid(0, 0)
    mov   x0, #0
    mov   x1, #0
    svc   #0
    mov   x8, #172                // getpid()
    svc   #0
    str   w0, [sp, #16]
    mov   x8, #29                 // ioctl(0, TIOCSPGRP, &pid): fails without a terminal
    mov   x0, #0
    mov   x1, #0x5410
    add   x2, sp, #16
    svc   #0
    mov   x8, #135                // rt_sigprocmask(SIG_SETMASK, &old, NULL, 8)
    mov   x0, #2
    add   x1, sp, #8
    mov   x2, #0
    mov   x3, #8
    svc   #0
    mov   w22, #127               // the code if no place has it
    mov   x23, x19
    mov   w25, #0x2d2d            // "--"
mark:
    ldr   x0, [x23, #8]!
    cbz   x0, failed
    ldrh  w1, [x0]
    cmp   w1, w25
    b.ne  mark
    ldrb  w1, [x0, #2]
    cbnz  w1, mark
    mov   x24, x23
environment:
    ldr   x0, [x24, #8]!
    cbnz  x0, environment
    add   x24, x24, #8
place:
    add   x19, x19, #8
    cmp   x19, x23
    b.eq  failed
    mov   x8, #221                // execve(place, argv, envp)
    ldr   x0, [x19]
    add   x1, x23, #8
    mov   x2, x24
    svc   #0
    cmn   w0, #2                  // ENOENT
    b.eq  place
    cmn   w0, #20                 // ENOTDIR
    b.eq  place
    mov   w22, #126
    b     place
failed:
    mov   w0, w22
    b     exit

name:
    .asciz "init"
    .balign 4
main_pid:
    .long 0
