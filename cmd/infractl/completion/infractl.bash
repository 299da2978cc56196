# Completion of infractl for bash: source <(infractl completion bash)
_infractl() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    [[ $line == "${COMP_WORDS[COMP_CWORD]}"* ]] && COMPREPLY+=("$line")
  done < <("${COMP_WORDS[@]:0:COMP_CWORD}" --generate-bash-completion 2>/dev/null)
}
complete -o default -F _infractl infractl
