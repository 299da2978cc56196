#compdef infractl
# Completion of infractl for zsh: source <(infractl completion zsh)
_infractl() {
  local -a words_before found
  words_before=("${(@)words[1,CURRENT-1]}")
  found=("${(@f)$("${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
  compadd -- "${found[@]}"
}
compdef _infractl infractl
