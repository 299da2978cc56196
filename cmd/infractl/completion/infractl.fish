# Completion of infractl for fish: infractl completion fish | source
function __infractl_complete
  set -l words (commandline -opc)
  $words --generate-bash-completion 2>/dev/null
end
complete -c infractl -f -a '(__infractl_complete)'
