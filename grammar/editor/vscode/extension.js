// Starts `brewgraph lsp` and connects it to the editor. The setting `brewgraph.command` names another command.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function start() {
  const [command, ...args] = vscode.workspace.getConfiguration("brewgraph").get("command");
  const options = {
    documentSelector: [{ language: "brew" }],
    synchronize: { fileEvents: vscode.workspace.createFileSystemWatcher("**/*.brew") },
  };
  client = new LanguageClient("brewgraph", "brewgraph", { command, args }, options);
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const help = 'Install it with `pip install "brewgraph[lsp]"`, or set `brewgraph.command`.';
    vscode.window.showErrorMessage(`The language server \`${command}\` does not start: ${error.message}. ${help}`);
  }
}

async function stop() {
  const running = client;
  client = undefined;
  if (running) await running.stop();
}

exports.activate = async (context) => {
  const restart = async () => {
    await stop();
    await start();
  };
  context.subscriptions.push(vscode.commands.registerCommand("brewgraph.restart", restart));
  context.subscriptions.push(
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("brewgraph.command")) return restart();
    }),
  );
  await start();
};

exports.deactivate = stop;
