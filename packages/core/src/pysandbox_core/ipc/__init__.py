"""System V interprocess communication: shared memory, semaphores, message queues. svipc(7)"""
