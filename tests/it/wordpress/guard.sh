#!/usr/bin/env bash
# Runs a server for as long as standard input stays open: guard.sh FOLDER COMMAND… However the process at the other end
# of the pipe ends, the server goes, with all its children, and the folder with it.
folder=$1
shift
# With job control the server leads a process group of its own, to which its children belong.
set -m
"$@" < /dev/null &
cat > /dev/null
{
  kill -KILL -- "-$!"
  wait
} 2> /dev/null
rm -rf -- "$folder"
