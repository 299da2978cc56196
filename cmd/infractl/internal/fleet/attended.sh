# shellcheck shell=sh
# Runs a command for somebody who listens. When nobody does any more, which the
# end of the input tells, the command is ended, with all that it has started.

# attended COMMAND... runs it without input and exits with its exit code.
attended() {
	exec 3<&0
	# In the background it leads no process group yet, so setsid does not fork.
	setsid -- "$@" </dev/null 3<&- &
	command=$!
	{
		cat <&3
		# From here on it goes through with it.
		trap '' TERM
		# Some shells take -- only after -s.
		kill -s TERM -- "-$command" && sleep 3 && kill -s KILL -- "-$command"
	} >/dev/null 2>&1 &
	watcher=$!
	exec 3<&-
	status=0
	wait "$command" || status=$?
	kill "$watcher"
	exit "$status"
}

# as_user USER COMMAND... runs it as another user, with that user's environment.
as_user() {
	user=$1
	shift
	attended setpriv --reuid="$user" --regid="$(id -g -- "$user")" --init-groups --reset-env -- "$@"
}
