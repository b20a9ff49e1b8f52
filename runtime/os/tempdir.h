/* A directory for the temporary files of this process: made when it is first
   asked for, and removed with all that is in it at the process's end.

   A child that is a copy of this process knows the directory, and does not
   remove it. A process that is killed leaves it behind.
   Safe: processes and threads. Blocks: never, but for the disk. */
#ifndef MP_OS_TEMPDIR_H
#define MP_OS_TEMPDIR_H

/* Its path, which stays as it is. 0; -errno: it cannot be made in $TMPDIR,
   or /tmp where there is none. */
int mp_tempdir(const char **path);

/* The process ends: removes it, if this process made it. Symbolic links are
   not followed. */
void mp_tempdir_remove(void);

#endif
